"""The plan of a model: all that decides what a training makes, apart from the images."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import OptionError
from ..images import ImageSpec
from ..methods import registry
from ..runtime.engine import check_precision
from .calibration import check_rate

# Options of AD that become part of the plan; each method adds its own, see the registry.
OPTIONS = (
    "gray_scale",
    "img_size",
    "patch_size",
    "seed",
    "fit",
    "false_alarm_rate",
    "precision",
)


@dataclass(frozen=True)
class Plan:
    """What is to be made, checked.

    Parameters
    ----------
    method : str
        Name in the registry.
    parameters : dict
        The method's own options, all of them.
    spec : ImageSpec
        What the model takes.
    patch_size : int
        Side of a patch in pixels of the model's input.
    seed : int
        Seed of the split and of the fit.
    precision : str
        Arithmetic in which the model is calibrated and run.
    false_alarm_rate : float
        Share of good parts that may be rejected at the default threshold, in (0, 1).

    Raises
    ------
    OptionError
        A value cannot be used.
    """

    method: str
    parameters: dict[str, Any]
    spec: ImageSpec
    patch_size: int
    seed: int
    precision: str
    false_alarm_rate: float

    def __post_init__(self) -> None:
        preset = registry.preset(self.method)
        own = preset.parameters
        if not isinstance(self.parameters, dict) or self.parameters.keys() != own.keys():
            raise OptionError(
                f"The options of {self.method} are {', '.join(own) or 'none'}. "
                f"Received: {self.parameters!r}."
            )
        checked = {o.name: o.check(self.parameters[o.name]) for o in preset.options}
        object.__setattr__(self, "parameters", checked)
        check_patch_size(self.patch_size, self.spec.size)
        object.__setattr__(self, "patch_size", int(self.patch_size))
        seed = self.seed
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise OptionError(f"seed is a whole number from 0 to 2**31 - 1. Received: {seed!r}.")
        check_precision(self.precision)
        check_rate(self.false_alarm_rate)

    @classmethod
    def from_options(
        cls,
        method: str,
        options: Mapping[str, Any],
        image_sizes: Sequence[tuple[int, int]] = (),
    ) -> Self:
        """The preset of a method with what the user gave in its place.

        Parameters
        ----------
        method : str
            Name in the registry.
        options : mapping
            Names as in `AD`; None stands for the preset's own value.
        image_sizes : sequence of (int, int)
            (height, width) of photographs to train on. Where no img_size is given, a method whose
            preset says so takes their shape; see `input_size`.

        Raises
        ------
        OptionError
            There is no such option (the message lists those there are), or a value cannot be used.
        """
        preset = registry.preset(method)
        given = {name: value for name, value in options.items() if value is not None}
        unknown = given.keys() - set(OPTIONS) - preset.parameters.keys()
        if unknown:
            raise OptionError(
                f"AD has no option {', '.join(map(repr, sorted(unknown)))}. Valid options: "
                f"train_path, save_path, name, {', '.join(OPTIONS)}; and for {method}: "
                f"{', '.join(preset.parameters) or 'none'}."
            )
        gray = given.get("gray_scale", preset.gray_scale)
        if not isinstance(gray, bool):
            raise OptionError(f"gray_scale is True or False. Received: {gray!r}.")
        size = given["img_size"] if "img_size" in given else input_size(preset, image_sizes)
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise OptionError(f"img_size is (height, width) in pixels. Received: {size!r}.")
        spec = ImageSpec(size[0], size[1], 1 if gray else 3, given.get("fit", "stretch"))
        return cls(
            method,
            {
                name: copy.deepcopy(given.get(name, default))
                for name, default in preset.parameters.items()
            },
            spec,
            given.get("patch_size", min(preset.patch_size, *spec.size)),
            given.get("seed", 0),
            given.get("precision", "f32"),
            given.get("false_alarm_rate", 0.01),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`; an option that came later has its former value."""
        formerly = registry.preset(values["method"]).formerly
        saved = {
            name: value
            for name, value in values["parameters"].items()
            if value is not None or name not in formerly
        }
        spec = ImageSpec(**values["spec"])
        return cls(**{**values, "spec": spec, "parameters": {**formerly, **saved}})


def input_size(preset: registry.Preset, image_sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size of a model's input where the user names none.

    A preset with a `largest_area` keeps the shape of the photographs: the median of their aspect
    ratios, up to 1 : 4 (longer ones are squeezed to that). The input has about as many pixels as
    they have (the median), but not fewer than the preset's `img_size` and not more than its
    `largest_area`. Sides are rounded to multiples of 16.

    Parameters
    ----------
    preset : Preset
        Of the method.
    image_sizes : sequence of (int, int)
        (height, width) of photographs; without any, the preset's `img_size` is taken.

    Returns
    -------
    (int, int)
        (height, width) in pixels.
    """
    if preset.largest_area is None or not image_sizes:
        return preset.img_size
    heights, widths = np.array(image_sizes, np.float64).T
    ratio = float(np.exp(np.clip(np.median(np.log(heights / widths)), *np.log([1 / 4, 4]))))
    area = float(
        np.clip(np.median(heights * widths), math.prod(preset.img_size), preset.largest_area)
    )
    height, width = math.sqrt(area * ratio), math.sqrt(area / ratio)
    return 16 * round(height / 16), 16 * round(width / 16)


def check_patch_size(patch_size: int, size: tuple[int, int]) -> None:
    """Raise OptionError unless `patch_size` is a whole number that fits into `size` (H, W)."""
    is_integer = isinstance(patch_size, (int, np.integer)) and not isinstance(patch_size, bool)
    if not is_integer or not 4 <= patch_size <= min(size):
        raise OptionError(
            "patch_size is the side of a patch in pixels of the model's input, a whole number "
            f"from 4 to {min(size)} (the smaller side of img_size). Received: {patch_size!r}."
        )
