"""Stage 2, methods: something is fitted to good images and becomes one Keras graph.

One file per method, listed in `registry` with the options it has. Importing this room loads neither
Keras nor TensorFlow; the methods themselves do.
"""

from .options import Name, Names, Number, Option, WholeNumber
from .registry import PRESETS, Preset, preset, register

__all__ = [
    "PRESETS",
    "Name",
    "Names",
    "Number",
    "Option",
    "Preset",
    "WholeNumber",
    "preset",
    "register",
]
