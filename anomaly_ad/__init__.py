"""Visual inspection that learns from images of good parts only.

>>> from anomaly_ad import AD
>>> ad = AD("AD1", train_path="Dataset/Train")
>>> ad.train(75)
>>> ad.predict("Dataset/Test/", "Output/")

Importing this package loads neither TensorFlow nor OpenVINO.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import (
    AnomalyADError,
    BackboneError,
    DataError,
    DeviceError,
    EngineError,
    ImageError,
    ImageTooLargeError,
    MissingExtraError,
    ModelError,
    NotTrainedError,
    OptionError,
    OutputError,
    ParityError,
    PathError,
    TrainingError,
)

if TYPE_CHECKING:
    from .ad import AD
    from .inspection import Prediction

__all__ = [
    "AD",
    "AnomalyADError",
    "BackboneError",
    "DataError",
    "DeviceError",
    "EngineError",
    "ImageError",
    "ImageTooLargeError",
    "MissingExtraError",
    "ModelError",
    "NotTrainedError",
    "OptionError",
    "OutputError",
    "ParityError",
    "PathError",
    "Prediction",
    "TrainingError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # AD and Prediction bring OpenCV and OpenVINO with them, so they are loaded when asked for.
    if name == "AD":
        from .ad import AD

        return AD
    if name == "Prediction":
        from .inspection import Prediction

        return Prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
