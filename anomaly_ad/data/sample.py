"""Sample data: renders photographs of a machined washer, good and defective, with exact masks.

A fresh machine without a network has nothing to train on.  This module fills that gap: it renders
a turned steel washer with three drilled holes and a stamped mark, lying on a dark conveyor mat
under two lamps, in the folder layout that the rest of the package reads::

    <root>/train/good/000.png
    <root>/test/good/000.png
    <root>/test/<defect>/000.png
    <root>/ground_truth/<defect>/000_mask.png
    <root>/sample.json

Every image is a height map lit per pixel.  The brushing is not painted on: the highlight of turned
metal comes from an anisotropic reflection model (Ward), so a dent bends it as a real dent would.
The mask of a defect is the difference between two noise-free renderings of the same part, with the
defect and without it, hence it marks the pixels that really changed.

Lengths in this module are in units of the washer's outer radius unless a name ends in ``_px``;
angles are in radians, clockwise on the screen, 0 pointing right.
"""

from __future__ import annotations

import json
import math
import operator
import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..errors import OptionError, OutputError
from ..images import check_path
from ..support import bar
from .defects import DEFECTS, EDITS, difference_mask
from .photograph import Stage, develop, make_stage, photograph
from .rendered import LEAST_SIZE, render_defect
from .surface import (
    WORKING_SIDE,
    WRONG_PARTS,
    Bytes,
    Floats,
    Link,
    Part,
    Surface,
    make_surface,
)

# Kinds of defects whose size is given in pixels, see `rendered.render_defect`.
SMALL_DEFECTS: tuple[str, ...] = ("scratch", "spot", "blotch", "dent")
_CONTRASTS = (45.0, 90.0)  # of these, from subtle to obvious, in gray levels of 256

DEPTHS: tuple[int, ...] = (8, 12)
POSES: tuple[str, ...] = ("small", "any")
PARTS: tuple[str, ...] = ("washer", "link")
TABLES: tuple[str, ...] = ("mat", "any")
_LINK_DEFECTS = (0.06, 0.09)  # of the shorter side: length of defects where none is given

# Of OpenCV: JPEG of quality 95, TIFF without compression.
_OPTIONS = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".tif": [cv2.IMWRITE_TIFF_COMPRESSION, 1],
}
_RECORD = "sample.json"
_MARKER = ".rendering"
# Raised whenever the same arguments would give other pixels, so an old set is not mistaken for new.
_VERSION = 1

_MIN_SIDE, _MAX_SIDE = 64, 4096


# --- one image -----------------------------------------------------------------------------------


def render_part(
    seed: int,
    *,
    defect: str | None = None,
    severity: float = 1.0,
    size: tuple[int, int] = (512, 512),
    pose: str = "small",
    depth: int = 8,
    defect_px: tuple[float, float] | None = None,
    part: str = "washer",
    table: str = "mat",
) -> tuple[Bytes, Bytes]:
    """Render one photograph of the sample part and the mask of its defect.

    The seed fixes part, pose, light and sensor noise; `defect` and `severity` change nothing else.
    So the same seed with and without a defect shows the same part before and after the damage.

    Parameters
    ----------
    seed : int
        At least 0.  The same seed gives the same bytes.
    defect : str or None
        One of `DEFECTS` (of `SMALL_DEFECTS` where `defect_px` is given), or None for a good part.
    severity : float
        0.0 (subtle) to 1.0 (obvious).  For ``"wrong_part"`` it chooses among six other parts.
    size : (int, int)
        (height, width) in pixels, each at least 64.  The part is centred and fills about three
        quarters of the shorter side.
    pose : str
        ``"small"``: turned by up to 3 degrees and shifted by up to 0.8 % of the shorter side, as
        in a fixture.  ``"any"``: turned freely and shifted by up to 8.5 %.
    depth : int
        Bits of a value, 8 or 12.  The same seed gives the same scene and the same noise.
    defect_px : (float, float), optional
        Shortest and longest length of defects in pixels, such as (12, 20), whatever the image's
        size; the length grows with `severity`, as the contrast does.  None: defects are in
        proportion to the part.
    part : str
        ``"washer"``, or ``"link"``: an elongated one, a bar between two eyes of different size;
        its defects are `SMALL_DEFECTS`.
    table : str
        ``"mat"``, or ``"any"``: a table of another colour and texture in each image, and another
        light on it.

    Returns
    -------
    image : uint8 or uint16 array of shape (H, W, 3)
        RGB, 0 to 255 or, of 12 bits, 0 to 4095.
    mask : uint8 array of shape (H, W)
        255 where the defect changes the image, 0 elsewhere; all 0 for a good part, never all 0
        for a defect.

    Raises
    ------
    OptionError
        If an argument is not one of the above.
    """
    seed = _count("seed", seed, 0)
    size = _image_size(size)
    _choice("pose", pose, POSES)
    severity = _fraction("severity", severity)
    _depth(depth)
    defect_px = _lengths(defect_px)
    _choice("part", part, PARTS)
    _choice("table", table, TABLES)
    if part == "link" and defect_px is None:
        defect_px = _LINK_DEFECTS[0] * min(size), _LINK_DEFECTS[1] * min(size)
    shape: Part | Link = Link() if part == "link" else Part()
    if defect is not None:
        _choice("defect", defect, DEFECTS if defect_px is None else SMALL_DEFECTS)
    factor = math.ceil(WORKING_SIDE / min(size))
    seeds = np.random.SeedSequence(seed).spawn(6)
    stage = make_stage(seeds[:4], (size[0] * factor, size[1] * factor), pose, table)
    good = photograph(stage, make_surface(stage, shape), size)
    if defect is None:
        return develop(good, seeds[5], depth), np.zeros(size, np.uint8)
    if defect_px is not None:
        length = defect_px[0] + severity * (defect_px[1] - defect_px[0])
        rng = np.random.default_rng(seeds[4])
        surface = make_surface(stage, shape)
        is_link = part == "link"
        bad, mask = _with_small_defect(good, stage, surface, is_link, defect, length, severity, rng)
        return develop(bad, seeds[5], depth), mask
    if defect == "wrong_part":
        variant = round((1.0 - severity) * (len(WRONG_PARTS) - 1))
        surface = make_surface(stage, WRONG_PARTS[variant])
    else:
        surface = make_surface(stage, Part())
        EDITS[defect](stage, surface, np.random.default_rng(seeds[4]), severity)
    bad = photograph(stage, surface, size)
    return develop(bad, seeds[5], depth), difference_mask(good, bad)


def _with_small_defect(
    good: Floats,
    stage: Stage,
    surface: Surface,
    is_link: bool,
    defect: str,
    length: float,
    severity: float,
    rng: np.random.Generator,
) -> tuple[Floats, Bytes]:
    """A noise-free photograph with a defect of so many pixels on the metal, and its mask."""
    inside = surface.inside * np.float32(stage.unit_px)
    # A link has little metal that is far from its edges.
    margin = min(length, 0.25 * float(inside.max())) if is_link else length
    metal: Floats = (inside > margin).astype(np.float32)
    height, width = good.shape[:2]
    where = cv2.resize(metal, (width, height), interpolation=cv2.INTER_AREA) > 0.99
    contrast = _CONTRASTS[0] + severity * (_CONTRASTS[1] - _CONTRASTS[0])
    levels = np.rint(good).astype(np.uint8)
    out, mask = render_defect(levels, defect, length, contrast, rng, where=where)
    # What the defect adds, so that the photograph keeps its depth.
    added = out.astype(np.float32) - levels
    return good + added, mask.astype(np.uint8) * np.uint8(255)


# --- the data set --------------------------------------------------------------------------------


def render_sample(
    path: str | os.PathLike[str],
    *,
    n_train: int = 80,
    n_test_good: int = 20,
    n_per_defect: int = 6,
    size: tuple[int, int] = (512, 512),
    pose: str = "small",
    seed: int = 0,
    depth: int = 8,
    defect_px: tuple[float, float] | None = None,
    part: str = "washer",
    table: str = "mat",
    progress: bool = False,
) -> Path:
    """Render the whole sample data set into a folder.

    Photographs are JPEG files (quality 95: sensor noise makes PNG files six times as large), masks
    are PNG files; the default set takes about 9 MB.  Of 12 bits they are TIFF files of 16, without
    compression: 1.6 MB each, or 36 MB of 2000x3000 pixels.  Within each kind of defect the
    severity falls evenly from 1 to 0.  How many images there are changes no good image, and of a
    defective one only the severity.

    Parameters
    ----------
    path : path
        The folder; made if it is not there.  If it holds this very set already, nothing is done; a
        set whose rendering was interrupted is rendered again.
    n_train, n_test_good, n_per_defect : int
        Number of good images to train on (at least 1), of good test images, and of test images of
        each kind of defect: five, or four where `defect_px` is given or the part is a link.
    size, pose, depth, defect_px, part, table
        As in `render_part`.
    seed : int
        At least 0.  The same seed gives the same files.
    progress : bool
        Show progress on stderr.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OptionError
        An argument is not one of the above, or the folder holds something else.
    OutputError
        The folder cannot be written to.
    """
    record: dict[str, Any] = {
        "version": _VERSION,
        "n_train": _count("n_train", n_train, 1),
        "n_test_good": _count("n_test_good", n_test_good, 0),
        "n_per_defect": _count("n_per_defect", n_per_defect, 0),
        "size": list(_image_size(size)),
        "pose": _choice("pose", pose, POSES),
        "seed": _count("seed", seed, 0),
    }
    # As sets were recorded before there were these arguments.
    if _depth(depth) != 8:
        record["depth"] = depth
    if (lengths := _lengths(defect_px)) is not None:
        record["defect_px"] = list(lengths)
    if _choice("part", part, PARTS) != "washer":
        record["part"] = part
    if _choice("table", table, TABLES) != "mat":
        record["table"] = table
    root = check_path(path, "The folder of the sample")
    jobs = _jobs(record)
    if _is_rendered(root, record, jobs):
        return root
    try:
        _begin(root, record, jobs)
        with bar(len(jobs), "Rendering", shown=progress) as step:
            for job in jobs:
                image, mask = render_part(
                    job.seed,
                    defect=job.defect,
                    severity=job.severity,
                    size=size,
                    pose=pose,
                    depth=depth,
                    defect_px=defect_px,
                    part=part,
                    table=table,
                )
                _write(root / job.image, image[..., ::-1], _OPTIONS[Path(job.image).suffix])
                if job.mask is not None:
                    _write(root / job.mask, mask, [])
                step("")
        _write_record(root / _RECORD, record)  # last: a folder that has it is complete
        (root / _MARKER).unlink()
    except OSError as error:
        raise OutputError(
            f"The sample set cannot be written to {root}: {error}. Name a folder on a disk with "
            "room that you may write to; the next call into this one starts again."
        ) from error
    return root


class _Job(NamedTuple):
    """One image of a set; paths are relative to the set's folder."""

    image: str
    mask: str | None
    defect: str | None
    severity: float
    seed: int


def _jobs(record: dict[str, Any]) -> list[_Job]:
    """Every image of the set that a record describes."""
    jobs = []
    suffix = ".jpg" if record.get("depth", 8) == 8 else ".tif"
    is_small = "defect_px" in record or record.get("part") == "link"
    defects = SMALL_DEFECTS if is_small else DEFECTS
    for kind, defect in enumerate((None, None, *defects)):
        part = ("train", "test")[min(kind, 1)]
        count = record[("n_train", "n_test_good", "n_per_defect")[min(kind, 2)]]
        for index in range(count):
            # A seed of its own from the image's place, so that counts change no part.
            state = np.random.SeedSequence([record["seed"], kind, index])
            jobs.append(
                _Job(
                    image=f"{part}/{defect or 'good'}/{index:03d}{suffix}",
                    mask=f"ground_truth/{defect}/{index:03d}_mask.png" if defect else None,
                    defect=defect,
                    severity=1.0 if count == 1 else 1.0 - index / (count - 1),
                    seed=int(state.generate_state(1, np.uint64)[0]),
                )
            )
    return jobs


def _files(jobs: list[_Job]) -> set[str]:
    return {name for job in jobs for name in (job.image, job.mask) if name is not None}


def _is_rendered(root: Path, record: dict[str, Any], jobs: list[_Job]) -> bool:
    """Whether this very set is complete; OptionError if the folder holds something else."""
    advice = "Name another folder, or remove that one yourself."
    if root.exists() and not root.is_dir():
        raise OptionError(f"The sample set is rendered into a folder, but {root} is a file.")
    if not root.exists() or not any(root.iterdir()):
        return False
    found = _read_record(root / _RECORD)
    if found is None:
        if any((root / name).exists() for name in (_MARKER, f"{_MARKER}.tmp")):
            return False  # our own, interrupted
        raise OptionError(
            f"The sample set is rendered into an empty folder, but {root} holds other files. "
            + advice
        )
    if found != record:
        keys = sorted(key for key in {*found, *record} if found.get(key) != record.get(key))
        there = ", ".join(f"{key} {found.get(key)!r}" for key in keys)
        asked = ", ".join(f"{key} {record.get(key)!r}" for key in keys)
        raise OptionError(
            f"{root} holds a sample set with other arguments ({there}; asked for: {asked}). "
            + advice
        )
    missing = sorted(name for name in _files(jobs) if not (root / name).is_file())
    if missing:
        raise OptionError(
            f"The sample set in {root} is no longer complete: {len(missing)} of its files are "
            f"gone, {missing[0]} among them. " + advice
        )
    return True


def _begin(root: Path, record: dict[str, Any], jobs: list[_Job]) -> None:
    """Mark the folder as unfinished, and clear what an interrupted call with other counts left."""
    root.mkdir(parents=True, exist_ok=True)
    earlier = _read_record(root / _MARKER)
    if earlier is not None and earlier.keys() == record.keys():
        for name in _files(_jobs(earlier)) - _files(jobs):
            (root / name).unlink(missing_ok=True)
    _write_record(root / _MARKER, record)


def _read_record(path: Path) -> dict[str, Any] | None:
    """The arguments written to a file, or None if they are not there or not readable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_record(path: Path, record: dict[str, Any]) -> None:
    """Write the arguments so that the file is there completely or not at all."""
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _write(path: Path, image: Bytes, options: list[int]) -> None:
    """Write an image, grey or BGR, in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, np.ascontiguousarray(image), options)
    path.write_bytes(data.tobytes())


# --- arguments -----------------------------------------------------------------------------------


def _count(name: str, value: int, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise OptionError(f"{name} is a whole number from {least}. Received: {value!r}.")
    return int(value)


def _image_size(size: tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        height = width = 0
    if not (_MIN_SIDE <= height <= _MAX_SIDE and _MIN_SIDE <= width <= _MAX_SIDE):
        raise OptionError(
            f"size is (height, width) in pixels, each from {_MIN_SIDE} to {_MAX_SIDE}. "
            f"Received: {size!r}."
        )
    return height, width


def _depth(depth: int) -> int:
    if depth not in DEPTHS or isinstance(depth, bool):
        raise OptionError(f"depth is 8 or 12 bits. Received: {depth!r}.")
    return depth


def _lengths(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value is None:
        return None
    is_pair = isinstance(value, tuple | list) and len(value) == 2
    is_pair = is_pair and all(isinstance(one, int | float | np.number) for one in value)
    low, high = (float(one) for one in value) if is_pair else (0.0, 0.0)
    if not LEAST_SIZE <= low <= high <= _MAX_SIDE:
        raise OptionError(
            f"defect_px is (shortest, longest) in pixels, from {LEAST_SIZE:g} on. "
            f"Received: {value!r}."
        )
    return low, high


def _choice(name: str, value: str, valid: tuple[str, ...]) -> str:
    if value not in valid:
        raise OptionError(f"{name} is one of {', '.join(valid)}. Received: {value!r}.")
    return value


def _fraction(name: str, value: float) -> float:
    is_number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise OptionError(f"{name} is a number from 0 to 1. Received: {value!r}.")
    return float(value)
