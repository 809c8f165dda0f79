"""Writing a model for another program, and comparing the file with the model before it is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError, OutputError, ParityError
from ..images import ImageSet, PathLike, check_path
from ..images.sources import find_sources
from ..inspection.records import cannot_write
from ..model import StoredModel
from ..runtime.agreement import Parity, compared
from ..training.unseen import with_defects
from .kinds import FULL, HALF, KINDS, above_limit
from .metadata import metadata_of

FORMATS = tuple(KINDS)
WEIGHTS = (FULL, HALF)
# Of an output's range. Weights of 16 bits have 11 bits of precision.
TOLERANCE = {FULL: 1e-4, HALF: 2e-3}
_IMAGES, _VIEWS = 32, 32


@dataclass(frozen=True)
class Export:
    """A file that was written, and how far it is from the model.

    Parameters
    ----------
    files : tuple of Path
        The file that was named, and the one with its weights where that is another.
    to : str
        The format.
    parity : Parity
        How far its outputs are from the model's, on real images and on these with a gray square.
    """

    files: tuple[Path, ...]
    to: str
    parity: Parity

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)

    def __str__(self) -> str:
        names = " and ".join(str(file) for file in self.files)
        found = ", ".join(f"{name} {value:.1e}" for name, value in self.parity.deviation.items())
        return (
            f"Wrote {names} ({self.to}, {self.size / 1e6:.1f} MB). On {self.parity.n_images // 2} "
            "views of images, and on these with a gray square, all verdicts are those of the "
            f"model; largest deviation, as part of the range: {found} "
            f"(at most {self.parity.tolerance:g})."
        )


def export(
    stored: StoredModel,
    output: PathLike,
    to: str = "openvino",
    *,
    images: PathLike | Iterable[PathLike] | None = None,
    weights: str = FULL,
) -> Export:
    """Write a model for another program.

    The file is run on real images and compared with the model; it is put in place only if every
    output agrees and every verdict is the same. The metadata hold limits, names of the classes,
    what lies outside the graph, and the model's digest.

    Parameters
    ----------
    stored : StoredModel
        The model.
    output : path
        The file: .xml for "openvino" and "model-api" (weights lie next to it, in .bin), .onnx for
        "onnx". Replaced if it is there.
    to, images, weights
        See `AD.export`.

    Raises
    ------
    OptionError
        An argument cannot be used, or the format cannot express the model.
    DataError
        There are no images to compare with.
    ParityError
        The file deviates from the model; nothing is written.
    MissingExtraError
        A package is not installed.
    OutputError
        The file cannot be written.
    """
    if to not in KINDS:
        raise OptionError(f"to is one of {', '.join(KINDS)}. Received: {to!r}.")
    kind = KINDS[to]
    if weights not in WEIGHTS or (weights != FULL and not kind.halves):
        raise OptionError(
            f"weights is {' or '.join(WEIGHTS)}, the latter for openvino alone. "
            f"Received: {weights!r}."
        )
    target = check_path(output, "output")
    if target.suffix.lower() != kind.suffix:
        raise OptionError(f"A file for {to} is named *{kind.suffix}. Received: {target}.")
    if Path(os.path.realpath(target.parent)) == Path(os.path.realpath(stored.directory)):
        raise OptionError("The model directory belongs to the model. Choose another output.")
    stored.verify()
    views = _views(stored, images)
    expected = stored.engine.run_all(views)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
    except OSError as error:
        raise cannot_write(target.parent, error) from error
    try:
        fresh = folder / target.name
        kind.write(stored, fresh, metadata_of(stored), weights)
        received = kind.run(stored, fresh)(views)
        wanted = kind.expected(stored, expected)
        parity = compared(wanted, received, len(views), TOLERANCE[weights])
        verdicts = above_limit(stored, expected["score"])
        differing = int((kind.are_anomalous(stored, received) != verdicts).sum())
        _check(parity, differing, to, weights)
        files = _put(folder, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise cannot_write(target.parent, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Export(files, to, parity)


def _check(parity: Parity, differing: int, to: str, weights: str) -> None:
    if not parity.odd and not differing:
        return
    advice = (
        f"Export it with weights={FULL!r}."
        if weights != FULL
        else "Report this as a bug, with the versions of the packages."
    )
    raise ParityError(
        f"The exported file ({to}) is not the model: outputs deviate by "
        f"{parity.odd or parity.deviation} of their range (at most {parity.tolerance:g} is "
        f"accepted), and {differing} of {parity.n_images} verdicts differ. Nothing was written. "
        f"{advice}"
    )


def _put(folder: Path, target: Path) -> tuple[Path, ...]:
    """Put the written files in place, the one that was named last.

    Until then it is away, so that nobody reads an old graph with new weights.
    """
    written = sorted(folder.iterdir(), key=lambda path: path.suffix == target.suffix)
    if len(written) > 1:
        target.unlink(missing_ok=True)
    for path in written:
        os.replace(path, target.with_name(path.name))
    return tuple(target.with_name(path.name) for path in reversed(written))


def _views(stored: StoredModel, images: PathLike | Iterable[PathLike] | None) -> NDArray[np.uint8]:
    """What the model takes of some images, and the same with a gray square in each."""
    framing = stored.manifest.plan.framing
    paths = _training_images(stored) if images is None else _named(images)
    if not paths:
        raise DataError(
            "There are no images to compare the file with: those that the model was trained on are "
            "not where they were. Name some with `images` (--images DIR)."
        )
    some = paths[:: -(-len(paths) // _IMAGES)]
    with ImageSet.decode(some, framing) as decoded:
        views = decoded.as_views().spread(_VIEWS)[slice(None)]
    return with_defects(views, framing)


def _named(images: PathLike | Iterable[PathLike]) -> list[Path]:
    return [source.path for source in find_sources(images).items if source.path is not None]


def _training_images(stored: StoredModel) -> Sequence[Path]:
    """Those of the training that are still there."""
    return [path for _, path, _ in stored.manifest.places if path.is_file()]
