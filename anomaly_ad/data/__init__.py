"""Data sets: looking at one before training, and rendering one where there is none.

`render_defect` renders defects on photographs of good parts. Photographs are only read here, never
changed.
"""

from .rendered import render_defect
from .sample import render_sample

__all__ = [
    "render_defect",
    "render_sample",
]
