"""Choosing: which method, and which of its options, on the user's images, and why.

`compare` trains several methods and says which cannot be told from the best; `tune` searches
the options of one. Both go by `merit`: what a limit finds, and how well defects are told apart.
"""

from .comparing import Compared, Comparison, compare
from .tuning import Tuned, Tuning, tune

__all__ = ["Compared", "Comparison", "Tuned", "Tuning", "compare", "tune"]
