"""The methods by name, without TensorFlow: where each lives, and the values it begins with."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, missing_extra

if TYPE_CHECKING:
    from .base import Detector


@dataclass(frozen=True)
class Preset:
    """One name that users give, such as "AD1".

    Parameters
    ----------
    summary : str
        One line for people who choose.
    module, cls : str
        The file in this folder and the class in it.
    gray_scale : bool
        Whether images are taken as gray.
    img_size : (int, int)
        (height, width) of the model's input in pixels.
    patch_size : int
        Side of a patch in pixels of the model's input.
    epochs : int or None
        Passes over the images; None for a method that needs no repeated passes.
    parameters : mapping
        The further options of the method and their defaults.
    min_images : int
        Fewer images of good parts are refused.
    adds_images : bool
        Whether good images can be added to a trained model as if they had been there before.
    largest_area : int or None
        For a method whose input takes the shape of the training images: the pixels of its input at
        most, where these have so many. None for one that keeps `img_size` as it is.
    formerly : mapping
        Values of options that manifests do not name, or name as null, which were written before
        there were these options.
    """

    summary: str
    module: str
    cls: str
    gray_scale: bool
    img_size: tuple[int, int]
    patch_size: int
    epochs: int | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    min_images: int = 10
    adds_images: bool = False
    largest_area: int | None = None
    formerly: Mapping[str, Any] = field(default_factory=dict)


_AUTOENCODER: dict[str, Any] = {
    "module": "autoencoder",
    "cls": "Autoencoder",
    "img_size": (200, 200),
    "patch_size": 40,
    "epochs": 75,
    "parameters": {"code_channels": 4, "hidden_share": 0.15},
}


def _variational(module: str, cls: str, **parameters: Any) -> dict[str, Any]:
    """The autoencoder's values for a method that has a distribution for a code."""
    together = {**_AUTOENCODER["parameters"], "beta": 1e-4, **parameters}
    return {**_AUTOENCODER, "module": module, "cls": cls, "parameters": together}


_FEATURES: dict[str, Any] = {
    "gray_scale": False,
    "img_size": (256, 256),
    "patch_size": 32,
    "epochs": None,
    "largest_area": 256 * 256,
}
DEFAULT_BACKBONE = "efficientnet_lite0"
_BACKBONE: dict[str, Any] = {
    "backbone": DEFAULT_BACKBONE,
    "layers": ["stage1", "stage2", "stage4"],
}
_GRID: dict[str, Any] = {**_BACKBONE, "blur": 4.0}

PRESETS: dict[str, Preset] = {
    "padim": Preset(
        "Gaussian of pretrained features at each position: parts that lie alike",
        module="padim",
        cls="Padim",
        parameters={**_GRID, "channels": 128, "prior": 20.0, "regularization": 0.03},
        adds_images=True,
        formerly={"prior": 0.0, "layers": ["stage1", "stage2", "stage4"]},
        **_FEATURES,
    ),
    "patchcore": Preset(
        "Nearest neighbours of pretrained features: parts in any place and rotation",
        module="patchcore",
        cls="PatchCore",
        parameters={**_GRID, "neighbours": 2000, "pool": 200_000},
        **{**_FEATURES, "largest_area": 384 * 384},
    ),
    "dfm": Preset(
        "Principal components of pretrained features: whole images that deviate",
        module="dfm",
        cls="DFM",
        parameters={**_GRID, "layers": ["stage4"], "variance": 0.97},
        adds_images=True,
        **_FEATURES,
    ),
    "dfkde": Preset(
        "Kernel density of pretrained features: whole images that are improbable, no map",
        module="dfkde",
        cls="DFKDE",
        parameters={
            **_BACKBONE,
            "layers": ["stage4", "stage6"],
            "variance": 0.99,
            "bandwidth": "scott",
        },
        adds_images=True,
        **_FEATURES,
    ),
    "AD0": Preset("Patch autoencoder, colour, 200x200", gray_scale=False, **_AUTOENCODER),
    "AD1": Preset("Patch autoencoder, gray, 200x200", gray_scale=True, **_AUTOENCODER),
    "vae": Preset(
        "Variational patch autoencoder, colour, 200x200",
        gray_scale=False,
        **_variational("vae", "VAE"),
    ),
    "lake": Preset(
        "Density of the variational autoencoder's code and errors, colour, 200x200",
        gray_scale=False,
        **_variational("lake", "LAKE", layer_weight=0.1),
    ),
}


def preset(name: str) -> Preset:
    """The preset of that name; OptionError lists the valid names."""
    try:
        return PRESETS[name]
    except (KeyError, TypeError):
        raise OptionError(
            f"There is no detector named {name!r}. Valid names: {', '.join(PRESETS)}."
        ) from None


def detector_class(name: str) -> type[Detector]:
    """The class behind a name. Imports Keras; MissingExtraError says how to install it."""
    chosen = preset(name)
    module = keras_module(f"{__package__}.{chosen.module}", "Training")
    cls: type[Detector] = getattr(module, chosen.cls)
    return cls


def keras_module(name: str, what: str) -> ModuleType:
    """Import a module of this package that needs Keras.

    Parameters
    ----------
    name : str
        Its full name.
    what : str
        What it is for, as the start of a sentence, for the MissingExtraError.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its notes on start-up are not for users
    try:
        importlib.import_module("tensorflow")
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or "tensorflow").partition(".")[0]
        if missing == "anomaly_ad":
            raise
        raise missing_extra(what, "train", missing) from error
