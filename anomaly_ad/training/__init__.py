"""Stage 3, training: learn, graph, convert, prove, scores of unseen good images, limits, save.

One straight line in `steps`, what is said around it in `work`. Keras is loaded when it works, not
when it is imported.
"""

from .shared import Shared
from .work import Trained, Work, add_images, check, check_adding, doubts, prepare, train

__all__ = [
    "Shared",
    "Trained",
    "Work",
    "add_images",
    "check",
    "check_adding",
    "doubts",
    "prepare",
    "train",
]
