"""Labelled images in, figures out: how good a model is, where its limit should lie, and drift.

`detection_curve` needs good images only: it renders defects on them.

Each figure comes with its interval, or with the reason why it is not given.
"""

from .detection import ProbabilityOfDetection, detection_curve
from .drift import Drift
from .figures import Evaluation, evaluate
from .limits import calibrate, calibrated_by

__all__ = [
    "Drift",
    "Evaluation",
    "ProbabilityOfDetection",
    "calibrate",
    "calibrated_by",
    "detection_curve",
    "evaluate",
]
