"""Stage 4, runtime: a Keras graph becomes an OpenVINO model, is proven equal, and runs.

`engine` is all that predicting needs; `convert` needs Keras and is imported where it is used.
"""

from .devices import Device
from .engine import INT8, Engine, Outputs, check_precision

__all__ = [
    "INT8",
    "Device",
    "Engine",
    "Outputs",
    "check_precision",
]
