"""Data sets: looking at one before training, and rendering one where there is none.

Photographs are only read here, never changed.
"""

from .sample import render_sample

__all__ = [
    "render_sample",
]
