"""The plan of a model: all that decides what a training makes, apart from the images."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np

from ..errors import OptionError
from ..images import Framing, ValueRange
from ..images.light import NORMALIZE, light_from_dict
from ..images.pose import ALIGN, Pose, pose_from_dict, pose_to_dict
from ..images.roi import box_of, check_region, is_part, resolve_region
from ..images.tiles import Tiles, check_tiling, lay_tiles
from ..methods import registry
from ..runtime import check_precision
from .calibration import check_rate

DEFAULT_ALIGN = "auto"
NOT_IN_TILES = (
    "An ensemble does not take photographs in tiles, since what its members say of a whole "
    "photograph is not what they say of its tiles."
)

# Manifests name some fields otherwise than the code.
_IN_MANIFESTS = {"framing": "spec"}
# The values of fields that manifests do not name, or name as null, which were written before there
# were these fields: of a plan and of its framing. Options of methods: `Preset.formerly`.
_FORMERLY: dict[str, Any] = {}
_FRAMING_FORMERLY: dict[str, Any] = {
    "outside": None,
    "value_range": None,
    "deep": False,
    "reduces": False,
    "region": None,
    "only_part": False,
    "part_share": None,
    "pose": None,
    "light": None,
    "tiles": None,
}


@dataclass(frozen=True)
class Plan:
    """What is to be made, checked.

    Parameters
    ----------
    method : str
        Name in the registry.
    parameters : dict
        The method's own options, all of them.
    framing : Framing
        What the model takes of a photograph.
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

    Notes
    -----
    The options of a method from outside this package are taken as they are: its model predicts
    whether it is registered or not, for the graph is all that takes. Training checks them.
    """

    method: str
    parameters: dict[str, Any]
    framing: Framing
    patch_size: int
    seed: int
    precision: str
    false_alarm_rate: float

    def __post_init__(self) -> None:
        is_name = isinstance(self.method, str) and self.method.isidentifier()
        if not is_name or not isinstance(self.parameters, dict):
            raise OptionError(f"A plan has a method and its options. Received: {self!r}.")
        if registry.is_own(self.method):
            preset = registry.preset(self.method)
            object.__setattr__(self, "parameters", preset.checked(self.parameters))
        check_patch_size(self.patch_size, self.framing.size)
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
        value_range: ValueRange | None = None,
        *,
        deep: bool = False,
        pose: Pose | None = None,
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
        value_range : (float, float), optional
            Learnt from images of more than 8 bits; what the user gave comes first.
        deep : bool
            Whether the photographs have more than 8 bits.
        pose : Pose, optional
            Learnt from the photographs; see `images.pose`.

        Raises
        ------
        OptionError
            There is no such option (the message lists those there are), or a value cannot be used.
        """
        preset = registry.preset(method)
        given = {name: value for name, value in options.items() if value is not None}
        unknown = given.keys() - set(registry.OPTIONS[3:]) - preset.parameters.keys()
        if unknown:
            raise OptionError(
                f"AD has no option {', '.join(map(repr, sorted(unknown)))}. Valid options: "
                f"{', '.join(registry.OPTIONS)}; and for {method}: "
                f"{', '.join(preset.parameters) or 'none'}."
            )
        gray = given.get("gray_scale", preset.gray_scale)
        if not isinstance(gray, bool):
            raise OptionError(f"gray_scale is True or False. Received: {gray!r}.")
        roi, ignore = given.get("roi"), given.get("ignore")
        check_region("roi", roi)
        check_region("ignore", ignore)
        _check_word("align", given.get("align", DEFAULT_ALIGN), ALIGN)
        _check_word("normalize", given.get("normalize", "none"), NORMALIZE)
        region = resolve_region(roi, ignore, image_sizes)
        size = given.get("img_size", preset.img_size)
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise OptionError(f"img_size is (height, width) in pixels. Received: {size!r}.")
        tiles = _tiles(method, given, image_sizes, region, pose)
        if "img_size" not in given:
            taken = _taken_sizes(image_sizes, region, pose)
            size = input_size(preset, taken)
            if tiles is not None:
                size = _input_of(preset, tiles, chosen=given.get("tiles") == "auto")
        values = given.get("value_range", value_range)
        framing = Framing.new(
            size[0],
            size[1],
            1 if gray else 3,
            given.get("fit", "stretch"),
            **({} if values is None else {"value_range": values}),
            deep=deep,
            region=region,
            only_part=is_part(roi),
            pose=pose,
            tiles=tiles,
        )
        parameters = {
            name: copy.deepcopy(given.get(name, default))
            for name, default in preset.parameters.items()
        }
        return cls(
            method,
            preset.checked(parameters),
            framing,
            given.get("patch_size", min(preset.patch_size, *framing.size)),
            given.get("seed", 0),
            given.get("precision", "f32"),
            given.get("false_alarm_rate", 0.01),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, by the names that manifests have."""
        values = asdict(self)
        if self.framing.pose is not None:
            values["framing"]["pose"] = pose_to_dict(self.framing.pose)
        former = _FRAMING_FORMERLY
        values["framing"] = {  # as it was written before there were these fields
            name: value
            for name, value in values["framing"].items()
            if name not in former or value != former[name]
        }
        return {_IN_MANIFESTS.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; a field that came later has its former value."""
        names = {_IN_MANIFESTS.get(each.name, each.name): each.name for each in fields(cls)}
        known = {names.get(name, name): value for name, value in values.items()}
        method = registry.PRESETS.get(known["method"])
        framing = _as_formerly(known["framing"], _FRAMING_FORMERLY)
        if framing["part_share"] is not None:
            low, high = framing["part_share"]
            framing["part_share"] = float(low), float(high)
        if framing["pose"] is not None:
            framing["pose"] = pose_from_dict(framing["pose"])
        if framing["light"] is not None:
            framing["light"] = light_from_dict(framing["light"])
        if framing["tiles"] is not None:
            photograph = framing["tiles"]["photograph"]
            framing["tiles"] = Tiles(**{**framing["tiles"], "photograph": tuple(photograph)})
        known["framing"] = Framing(**framing)
        options = {} if method is None else method.formerly
        known["parameters"] = _as_formerly(known["parameters"], options)
        return cls(**_as_formerly(known, _FORMERLY))


def _as_formerly(saved: Mapping[str, Any], formerly: Mapping[str, Any]) -> dict[str, Any]:
    """What was saved, with the former values of what came later."""
    kept = {name: saved[name] for name in saved if saved[name] is not None or name not in formerly}
    return {**formerly, **kept}


def _check_word(name: str, value: Any, valid: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in valid:
        raise OptionError(f"{name} is one of {', '.join(valid)}. Received: {value!r}.")


def _taken_sizes(
    sizes: Sequence[tuple[int, int]], region: str | None, pose: Pose | None
) -> list[tuple[int, int]]:
    """(height, width) of what is taken of photographs."""
    if pose is not None:
        return [pose.size_of(size) for size in sizes]
    if region is not None:
        x1, y1, x2, y2 = box_of(region)
        return [(y2 - y1, x2 - x1) for _ in sizes]
    return [*sizes]


def _tiles(
    method: str,
    given: Mapping[str, Any],
    image_sizes: Sequence[tuple[int, int]],
    region: str | None,
    pose: Pose | None,
) -> Tiles | None:
    """The tiles that a user asked for; None where one view does."""
    check_tiling(given)
    preset = registry.preset(method)
    if preset.in_tiles is None and (given.keys() & {"tiles", "tile_size"}):
        if preset.combines:
            raise OptionError(f"{NOT_IN_TILES} Use one method, such as patchcore.")
        raise OptionError(
            f"{method} is not for tiles: what it learns of a position, or of the edge of an image, "
            "does not hold for all of them. Use patchcore, which learns what a part looks like "
            "wherever it lies."
        )
    largest = preset.img_size
    if preset.largest_area is not None:
        largest = (math.isqrt(preset.largest_area),) * 2
    return lay_tiles(
        given,
        image_sizes,
        lambda size: _taken_sizes([size], region, pose)[0],
        given.get("img_size", largest),
        preset.cell,
        by_map=preset.in_tiles == "map",
    )


def _input_of(preset: registry.Preset, tiles: Tiles, *, chosen: bool) -> tuple[int, int]:
    """The size of the input for tiles: not larger than they are, where that is near enough.

    Where the tiles were `chosen` for the user, who then cannot choose larger ones, it always is.
    """
    size = input_size(preset, [tiles.size])
    if preset.largest_area is None:
        return size
    height, width = (
        max(32 * (tile // 32), 16) if tile < side and (chosen or side < tile + 32) else side
        for side, tile in zip(size, tiles.size, strict=True)
    )
    return height, width


def input_size(preset: registry.Preset, image_sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size of a model's input where the user names none.

    A preset with a `largest_area` keeps the shape of the photographs: the median of their aspect
    ratios, up to 1 : 4 (longer ones are squeezed to that). The input has about as many pixels as
    they have (the median), but not fewer than the preset's `img_size` and not more than its
    `largest_area`. Sides are multiples of 32, the
    stride of the deepest layers.

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
    return 32 * round(height / 32), 32 * round(width / 32)


def check_patch_size(patch_size: int, size: tuple[int, int]) -> None:
    """Raise OptionError unless `patch_size` is a whole number that fits into `size` (H, W)."""
    is_integer = isinstance(patch_size, (int, np.integer)) and not isinstance(patch_size, bool)
    if not is_integer or not 4 <= patch_size <= min(size):
        raise OptionError(
            "patch_size is the side of a patch in pixels of the model's input, a whole number "
            f"from 4 to {min(size)} (the smaller side of img_size). Received: {patch_size!r}."
        )
