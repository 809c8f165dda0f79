"""Stage 7, drawing: pictures that show a verdict, and showing them where there is a screen.

Arrays in, RGB arrays of uint8 out; nothing here reads or writes files.
"""

from .pictures import (
    HEAT,
    annotated,
    colours,
    draw_boxes,
    draw_outlines,
    frame,
    heatmap,
    side_by_side,
    to_rgb,
)
from .screen import show

__all__ = [
    "HEAT",
    "annotated",
    "colours",
    "draw_boxes",
    "draw_outlines",
    "frame",
    "heatmap",
    "show",
    "side_by_side",
    "to_rgb",
]
