"""The methods by name, without TensorFlow: where each lives, and the values it begins with."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import OptionError, missing_extra
from ..statistics.density import RULES
from ..support import say
from .options import Choice, Name, Names, Number, Option, WholeNumber
from .quiet import without_alarms

if TYPE_CHECKING:
    from .base import Detector

D = TypeVar("D", bound="Detector")


@dataclass(frozen=True)
class Preset:
    """One name that users give, such as "AD1".

    Parameters
    ----------
    summary : str
        One line for people who choose.
    module, cls : str
        The file in this folder and the class in it; empty for a method that registers itself.
    gray_scale : bool
        Whether images are taken as gray.
    img_size : (int, int)
        (height, width) of the model's input in pixels.
    patch_size : int
        Side of a patch in pixels of the model's input.
    epochs : int or None
        Passes over the images; None for a method that needs no repeated passes.
    options : tuple of Option
        The further options of the method.
    min_images : int
        Fewer images of good parts are refused.
    adds_images : bool
        Whether good images can be added to a trained model as if they had been there before.
    largest_area : int or None
        For a method whose input takes the shape of the training images: the pixels of its input at
        most, where these have so many. None for one that keeps `img_size` as it is.
    in_tiles : {"score", "map"} or None
        What scores a photograph that is taken in tiles: the largest score of a tile, or the largest
        value of the merged map, for a method that scores by its map or the cells of it. None for
        one that learns each position, or whose map is not to be relied on at a tile's edge.
    cell : int
        Pixels of its input that a defect should cover, for `tiles="auto"`.
    combines : bool
        Whether it is made of other methods, its members.
    minutes : float
        That 200 images of 256x256 pixels take to be learnt on two cores, about.
    is_offered : bool
        Whether `compare` takes it where no methods are named.
    formerly : mapping
        Values of options that manifests do not name, or name as null, which were written before
        there were these options.
    """

    summary: str
    module: str = ""
    cls: str = ""
    gray_scale: bool = False
    img_size: tuple[int, int] = (256, 256)
    patch_size: int = 32
    epochs: int | None = None
    options: tuple[Option, ...] = ()
    min_images: int = 10
    adds_images: bool = False
    largest_area: int | None = None
    in_tiles: Literal["score", "map"] | None = "score"
    cell: int = 16
    combines: bool = False
    minutes: float = 10.0
    is_offered: bool = True
    formerly: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_statistical(self) -> bool:
        """Whether it learns in one pass over features, rather than by gradient in epochs."""
        return self.epochs is None and not self.combines

    @property
    def parameters(self) -> dict[str, Any]:
        """The further options and their defaults."""
        return {option.name: option.default for option in self.options}

    def checked(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """All further options as plain values; OptionError if one cannot be used."""
        if parameters.keys() != self.parameters.keys():
            raise OptionError(
                f"The options of this method are {', '.join(self.parameters) or 'none'}. "
                f"Received: {dict(parameters)!r}."
            )
        return {option.name: option.check(parameters[option.name]) for option in self.options}


_AUTOENCODER: dict[str, Any] = {
    "module": "autoencoder",
    "cls": "Autoencoder",
    "img_size": (200, 200),
    "patch_size": 40,
    "epochs": 75,
    "in_tiles": "map",
    "minutes": 5.0,
}
_CODE = (
    WholeNumber("code_channels", 4, "channels of the code", 1, 64, search=(1, 16)),
    Number(
        "hidden_share",
        0.15,
        "share of the image that is hidden in training",
        0,
        0.5,
        search=(0.0, 0.4),
    ),
)
_BETA = Number(
    "beta",
    1e-4,
    "weight of the code's divergence; more: a simpler code",
    0,
    10,
    search=(1e-5, 1e-2),
)

_FEATURES: dict[str, Any] = {
    "gray_scale": False,
    "img_size": (256, 256),
    "patch_size": 32,
    "epochs": None,
    "largest_area": 256 * 256,
}
DEFAULT_BACKBONE = "efficientnet_lite0"
_FINE = ["stage1", "stage2", "stage4"]
_DEEP = ["stage3", "stage4", "stage5"]
_HALVING = ["stage2", "stage4", "stage5"]  # each with half of the cells
_BACKBONE = Name(
    "backbone",
    DEFAULT_BACKBONE,
    "the pretrained network, by its name",
    search=(DEFAULT_BACKBONE, "efficientnet_lite1", "efficientnet_lite2"),
)
_BLUR = Number(
    "blur",
    4.0,
    "standard deviation of the map's smoothing in pixels",
    0,
    100,
    "a number of pixels",
    search=(1.0, 8.0),
)


_STEPS = WholeNumber("steps", 8, "couplings of each flow", 1, 32, search=(4, 12))


def _layers(*names: str, search: tuple[tuple[str, ...], ...] = ()) -> Names:
    return Names(
        "layers",
        list(names),
        "layers of the backbone whose features are used",
        search=search or tuple(map(tuple, (_FINE, _DEEP, _HALVING, ["stage4", "stage5"]))),
    )


def _variance(default: float) -> Number:
    return Number(
        "variance",
        default,
        "share that the principal components explain",
        0.5,
        0.9999,
        search=(0.9, 0.995),
    )


PRESETS: dict[str, Preset] = {
    "padim": Preset(
        "Gaussian of pretrained features at each position: parts that lie alike",
        module="padim",
        cls="Padim",
        options=(
            _BACKBONE,
            _layers(*_DEEP),
            _BLUR,
            Choice(
                "projection",
                "orthogonal",
                "how the features are shortened, at random",
                ("orthogonal", "channels"),
            ),
            WholeNumber(
                "channels", 160, "length of the features that is left", 1, 1024, search=(64, 320)
            ),
            Number(
                "prior",
                40.0,
                "weight of the covariance over all positions in that of each",
                0,
                1e6,
                "a number of images",
                search=(4.0, 400.0),
            ),
            Number(
                "regularization",
                0.03,
                "share of the mean variance that is added to the covariances",
                1e-6,
                1e6,
                search=(0.003, 0.3),
            ),
            Number(
                "top_share",
                0.01,
                "share of the positions whose mean is the score; 0: the map's maximum",
                search=(0.001, 0.1),
            ),
        ),
        adds_images=True,
        in_tiles=None,
        formerly={"prior": 0.0, "layers": _FINE, "projection": "channels", "top_share": 0.0},
        minutes=0.4,
        **_FEATURES,
    ),
    "patchcore": Preset(
        "Nearest neighbours of pretrained features: parts in any place and rotation",
        module="patchcore",
        cls="PatchCore",
        options=(
            _BACKBONE,
            _layers(*_FINE),
            _BLUR,
            WholeNumber(
                "neighbours",
                2000,
                "features that are kept (the coreset)",
                10,
                20_000,
                search=(500, 8000),
            ),
            WholeNumber("pool", 200_000, "features that these are chosen from", 1000, 10_000_000),
            Number(
                "top_share",
                0.02,
                "share of the cells whose mean is the score; 0: the paper's weighted maximum",
                search=(0.002, 0.1),
            ),
        ),
        in_tiles="map",
        formerly={"top_share": 0.0},
        minutes=0.6,
        **{**_FEATURES, "largest_area": 384 * 384},
    ),
    "dfm": Preset(
        "Principal components of pretrained features: whole images that deviate",
        module="dfm",
        cls="DFM",
        options=(
            _BACKBONE,
            Names(
                "layers",
                ["stage4"],
                "layers of the backbone that the map is made of",
                search=(("stage4",), ("stage2", "stage4")),
            ),
            Names(
                "image_layers",
                ["stage5"],
                "layers of the backbone that images are scored by",
                search=(("stage4",), ("stage5",), ("stage4", "stage5"), ("stage6",)),
            ),
            _BLUR,
            _variance(0.97),
        ),
        adds_images=True,
        formerly={"image_layers": ["stage4"]},
        minutes=0.5,
        **{**_FEATURES, "largest_area": 384 * 384},
    ),
    "dfkde": Preset(
        "Kernel density of pretrained features: whole images that are improbable, no map",
        module="dfkde",
        cls="DFKDE",
        options=(
            _BACKBONE,
            _layers(
                "stage4",
                "stage6",
                search=(("stage4", "stage6"), ("stage4",), ("stage5", "stage6"), ("stage6",)),
            ),
            _variance(0.99),
            Number(
                "bandwidth",
                "scott",
                "width of the kernels: a rule, or a factor",
                0.01,
                100,
                words=RULES,
            ),
        ),
        adds_images=True,
        minutes=0.3,
        **_FEATURES,
    ),
    "rd": Preset(
        "Reverse distillation: pretrained features that a decoder of good ones cannot give back",
        module="rd",
        cls="ReverseDistillation",
        options=(_BACKBONE, _layers(*_HALVING), _BLUR),
        in_tiles="map",
        minutes=6,
        **{**_FEATURES, "epochs": 60},
    ),
    "cfa": Preset(
        "Pretrained features drawn together around a memory of good ones",
        module="cfa",
        cls="CFA",
        options=(_BACKBONE, _layers(*_FINE), _BLUR),
        in_tiles=None,
        minutes=4,
        **{**_FEATURES, "epochs": 30},
    ),
    "simplenet": Preset(
        "A network that tells pretrained features from the same with noise",
        module="simplenet",
        cls="SimpleNet",
        options=(
            _BACKBONE,
            _layers(*_FINE),
            _BLUR,
            Number(
                "noise",
                0.5,
                "standard deviation of the noise, in that of features",
                0.001,
                10,
                search=(0.1, 1.5),
            ),
            Choice("noise_in", "everywhere", "where images get noise", ("patches", "everywhere")),
        ),
        in_tiles="map",
        minutes=4,
        **{**_FEATURES, "epochs": 100},
    ),
    "fastflow": Preset(
        "Density of pretrained features and their surroundings, by normalising flows",
        module="fastflow",
        cls="FastFlow",
        options=(_BACKBONE, _layers(*_HALVING), _BLUR, _STEPS),
        in_tiles="map",
        minutes=9,
        **{**_FEATURES, "epochs": 40},
    ),
    "cflow": Preset(
        "Density of pretrained features at their place, by conditional normalising flows",
        module="cflow",
        cls="CFLOW",
        options=(_BACKBONE, _layers(*_HALVING), _BLUR, _STEPS),
        in_tiles=None,
        minutes=12,
        **{**_FEATURES, "epochs": 40},
    ),
    "stfpm": Preset(
        "A small network that has learnt to see good parts as its pretrained teacher does",
        module="stfpm",
        cls="STFPM",
        options=(_BACKBONE, _layers(*_FINE), _BLUR),
        in_tiles="map",
        minutes=7,
        **{**_FEATURES, "epochs": 60},
    ),
    "draem": Preset(
        "A head on pretrained features that has learnt to mark made-up defects",
        module="draem",
        cls="DRAEM",
        options=(_BACKBONE, _layers(*_FINE), _BLUR),
        in_tiles=None,
        minutes=15,
        **{**_FEATURES, "epochs": 40},
    ),
    "efficientad": Preset(
        "A student of pretrained features and an autoencoder; mind the patents on it",
        module="efficientad",
        cls="EfficientAD",
        options=(
            _BACKBONE,
            _layers("stage2", "stage4", search=(("stage2", "stage4"), ("stage4",))),
            _BLUR,
        ),
        in_tiles=None,
        is_offered=False,
        minutes=15,
        **{**_FEATURES, "epochs": 40},
    ),
    "ganomaly": Preset(
        "Adversarial autoencoder, scored by its code: for comparison, 128x128",
        module="ganomaly",
        cls="GANomaly",
        in_tiles="score",
        minutes=35,
        **{**_FEATURES, "img_size": (128, 128), "epochs": 100, "largest_area": None},
    ),
    "ensemble": Preset(
        "Several methods as one: the mean of their answers in one unit",
        module="ensemble",
        cls="Ensemble",
        options=(Names("members", ["padim", "dfm"], "methods, or paths of saved models"),),
        combines=True,
        in_tiles=None,
        minutes=0.9,
        **_FEATURES,
    ),
    "AD0": Preset(
        "Patch autoencoder, colour, 200x200", gray_scale=False, options=_CODE, **_AUTOENCODER
    ),
    "AD1": Preset(
        "Patch autoencoder, gray, 200x200", gray_scale=True, options=_CODE, **_AUTOENCODER
    ),
    "vae": Preset(
        "Variational patch autoencoder, colour, 200x200",
        gray_scale=False,
        options=(*_CODE, _BETA),
        **{**_AUTOENCODER, "module": "vae", "cls": "VAE"},
    ),
    "lake": Preset(
        "Density of the variational autoencoder's code and errors, colour, 200x200",
        gray_scale=False,
        options=(
            *_CODE,
            _BETA,
            Number("layer_weight", 0.1, "weight of the layers' errors", 0, 10, search=(0.01, 1.0)),
        ),
        **{**_AUTOENCODER, "module": "lake", "cls": "LAKE", "in_tiles": "score"},
    ),
}


# Options that AD has for every method.
OPTIONS = (
    "train_path",
    "save_path",
    "name",
    "gray_scale",
    "img_size",
    "patch_size",
    "seed",
    "fit",
    "value_range",
    "roi",
    "ignore",
    "align",
    "normalize",
    "tiles",
    "tile_size",
    "overlap",
    "smallest_defect",
    "false_alarm_rate",
    "precision",
)
_registered: dict[str, type[Detector]] = {}  # methods from outside this package
_own = frozenset(PRESETS)


def is_own(name: str) -> bool:
    """Whether a method belongs to this package."""
    return name in _own


def register(name: str, preset: Preset) -> Callable[[type[D]], type[D]]:
    """Make a method of one's own known, as a decorator of its class.

    ``AD(name)`` then trains it. A model that was trained with it predicts in any process; only to
    train it again or to add images must it be registered there.

    Parameters
    ----------
    name : str
        As users give it: letters, digits and underscores.
    preset : Preset
        Its options and the values that it begins with.

    Raises
    ------
    OptionError
        The name cannot be used, or is that of a method of this package.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise OptionError(
            f"A method's name is letters, digits and underscores. Received: {name!r}."
        )
    if is_own(name):
        raise OptionError(f"{name!r} is a method of this package. Choose another name.")
    if not isinstance(preset, Preset):
        raise OptionError(f"A method is registered with a Preset. Received: {preset!r}.")
    names = [option.name for option in preset.options]
    others = (*OPTIONS, "model_name", "framing")
    taken = sorted({each for each in names if names.count(each) > 1 or each in others})
    if taken:
        raise OptionError(
            f"These options come twice, or are those of AD: {', '.join(taken)}. Rename them."
        )
    preset.checked(preset.parameters)

    def remember(cls: type[D]) -> type[D]:
        PRESETS[name] = replace(preset, module=cls.__module__, cls=cls.__name__)
        _registered[name] = cls
        return cls

    return remember


def preset(name: str) -> Preset:
    """The preset of that name; OptionError lists the valid names."""
    try:
        return PRESETS[name]
    except (KeyError, TypeError):
        raise OptionError(
            f"There is no detector named {name!r}. Valid names: {', '.join(PRESETS)}. A method of "
            "your own must be registered in this process: import the file that does it."
        ) from None


def check_extra(what: str) -> None:
    """Raise MissingExtraError where TensorFlow is not installed, without loading it."""
    is_there = sys.modules.get("tensorflow") is not None
    if not is_there and ("tensorflow" in sys.modules or find_spec("tensorflow") is None):
        raise missing_extra(what, "train", "tensorflow")


def detector_class(name: str) -> type[Detector]:
    """The class behind a name. Imports Keras; MissingExtraError says how to install it."""
    if name in _registered:
        return _registered[name]
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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its notes on start-up are not for users
    try:
        if sys.modules.get("tensorflow") is None:
            say("Starting TensorFlow ...")
            with without_alarms():
                tensorflow = importlib.import_module("tensorflow")
                tensorflow.config.list_logical_devices()  # looks for graphics cards
        return importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or "tensorflow").partition(".")[0]
        if missing == "anomaly_ad":
            raise
        raise missing_extra(what, "train", missing) from error
