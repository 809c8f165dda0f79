"""Stage 3, training: learn, graph, convert, prove, scores of unseen good images, limits, save.

One straight line in `steps`; Keras is loaded when it works, not when it is imported.
"""

from .steps import add_images, still_falling, train

__all__ = [
    "add_images",
    "still_falling",
    "train",
]
