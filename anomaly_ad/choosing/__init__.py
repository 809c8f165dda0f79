"""Choosing: which method, and which of its options, on the user's images, and why.

`compare` trains several methods and says which cannot be told from the best; `tune` searches
the options of one; `optimize` makes a model in INT8 where that does no harm. All go by `merit`:
what a limit finds, and how well defects are told apart.
"""

from .comparing import Compared, Comparison, compare
from .optimising import Optimisation, optimize
from .tuning import Tuned, Tuning, tune

__all__ = [
    "Compared",
    "Comparison",
    "Optimisation",
    "Tuned",
    "Tuning",
    "compare",
    "optimize",
    "tune",
]
