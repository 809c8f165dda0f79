"""Stage 5, model: what is saved of a training, and how it is opened again.

The plan decides what is made, the calibration where good ends; manifest and store are the files.
No method is known here but by its name, and no TensorFlow is loaded.
"""

from .calibration import (
    FEW_FOLDS,
    LIMIT_SCORE,
    MOST_MAPS,
    Calibration,
    GoodScores,
    Limit,
    check_rate,
    check_threshold,
    images_needed,
    standing,
)
from .choice import SAVE_PATH, Choice
from .manifest import Manifest, check_new_groups, is_model, models_below
from .members import framing_of, saved_members
from .plan import Plan, check_patch_size, input_size
from .store import StoredModel, load
from .writer import ModelWriter

__all__ = [
    "FEW_FOLDS",
    "LIMIT_SCORE",
    "MOST_MAPS",
    "SAVE_PATH",
    "Calibration",
    "Choice",
    "GoodScores",
    "Limit",
    "Manifest",
    "ModelWriter",
    "Plan",
    "StoredModel",
    "check_new_groups",
    "check_patch_size",
    "check_rate",
    "check_threshold",
    "framing_of",
    "images_needed",
    "input_size",
    "is_model",
    "load",
    "models_below",
    "saved_members",
    "standing",
]
