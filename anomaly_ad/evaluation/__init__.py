"""Labelled images in, figures out: how good a model is, where its limit should lie, and drift.

Each figure comes with its interval, or with the reason why it is not given.
"""

from .drift import Drift
from .figures import Evaluation, evaluate
from .limits import calibrate, calibrated_by

__all__ = [
    "Drift",
    "Evaluation",
    "calibrate",
    "calibrated_by",
    "evaluate",
]
