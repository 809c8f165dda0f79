"""The output folder of a run: pictures and records, and never a byte in the input."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, OutputError
from ..images import Image, PathLike, check_path
from ..images.sources import Source, Sources
from .prediction import Prediction
from .records import RunRecord, cannot_write, file_state

# Of photographs: 8 times as fast as the default, and a tenth larger. The filter is new in OpenCV 5.
_FAST_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):
    _FAST_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
PICTURES = {".png": _FAST_PNG, ".bmp": [], ".dib": [], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95]}
PICTURES |= {suffix: [cv2.IMWRITE_JPEG_QUALITY, 95] for suffix in _JPEG}
_LARGEST_SIDE = {".webp": 16_383} | dict.fromkeys(_JPEG, 65_500)  # pixels


class Output:
    """The output folder of a run: pictures and records, and never a byte in the input.

    Use it as a context manager. A picture lies at `folder` plus its source's relative path; see
    `picture_name`.

    Parameters
    ----------
    folder : path
        The output folder; made if it is not there.
    sources : Sources
        What is inspected.
    about : dict
        The model's digest and the options of the run, for the record.
    resume : bool
        Go on with the last such run.

    Raises
    ------
    OptionError
        The output folder is the input folder or lies in it, or a picture would replace an input;
        or arrays are to be resumed, which have no names to be known by.
    """

    def __init__(
        self, folder: PathLike, sources: Sources, about: dict[str, Any], *, resume: bool = False
    ) -> None:
        self.folder = check_path(folder, "save_path")
        self._record = RunRecord(self.folder, about, resume=resume)
        self._resume = resume
        # Links are resolved on both sides: the input may hold some, and so may the output folder.
        self._home = _real(self.folder)
        if isinstance(sources.items, list):
            self._keep_out_of(sources.items, sources.root)

    def _keep_out_of(self, sources: list[Source], root: Path | None) -> None:
        """All that is going to be read is known: nothing of it is written to."""
        paths = [source.path for source in sources if source.path is not None]
        parents = {path.parent: _real(path.parent) for path in paths}
        # Both what was named and what it leads to.
        input_files = {_real(path) for path in paths}
        input_files |= {parents[path.parent] / path.name for path in paths}
        input_folders: set[Path] = set()
        if root is not None:
            between = {root}
            for parent in parents:
                between |= {parent, *(p for p in parent.parents if p.is_relative_to(root))}
            input_folders = {_real(folder) for folder in between}
        if not input_folders.isdisjoint((self._home, *self._home.parents)):
            raise OptionError(
                f"The output folder {self.folder} is, or is inside, the input folder {root}. "
                "Choose a save_path outside it; predict never writes into its input."
            )
        real: dict[Path, Path] = {}  # of each folder that pictures go into
        for source in sources:
            self._refuse_arrays(source)
            parent = self._home / source.relative.parent
            if parent not in real:
                real[parent] = _real(parent)
            place = real[parent]
            inside = not input_folders.isdisjoint((place, *place.parents))
            if inside or place / picture_name(source.relative).name in input_files:
                raise self._into_input(source)

    def admit(self, source: Source) -> None:
        """Check an image that was drawn from an iterator, when what else comes is not known.

        Raises
        ------
        OptionError
            It lies in the output folder, or its picture would replace it; or it is an array where
            a run is resumed.
        """
        self._refuse_arrays(source)
        if source.path is None:
            return
        picture = self._home / picture_name(source.relative)
        files = {_real(source.path), _real(source.path.parent) / source.path.name}
        if any(file.is_relative_to(self._home) for file in files):
            raise OptionError(
                f"{source.name} lies in the output folder {self.folder}. Choose another save_path; "
                "predict never writes into its input."
            )
        if _real(picture.parent) / picture.name in files:
            raise self._into_input(source)

    def _into_input(self, source: Source) -> OptionError:
        return OptionError(
            f"The picture of {source.name} would be written into the input. Choose another "
            f"save_path than {self.folder}."
        )

    def _refuse_arrays(self, source: Source) -> None:
        if self._resume and source.path is None:
            raise OptionError(
                "resume knows images by their paths; arrays have none. Leave resume out."
            )

    def __enter__(self) -> Self:
        self._record.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._record.__exit__(*exception)

    def said(self, source: Source) -> Prediction | None:
        """What the run that is resumed has said of an image; what failed then is tried again."""
        before = self._record.done.get(file_state(source.path)) if self._record.done else None
        if before is None or before.error is not None:
            return None
        return dataclasses.replace(before, path=str(source.path))

    def record(self, source: Source, prediction: Prediction) -> None:
        """Append what is said of an image to the record."""
        self._record.append(source.name, prediction, file_state(source.path))

    def write_picture(self, source: Source, picture: Image) -> None:
        """Write the picture of an image, see `picture_name`."""
        write_picture(picture, self.folder / picture_name(source.relative))


def picture_name(image: Path) -> Path:
    """Where the picture of an image goes: its own name, with ".png" behind one that few can show.

    JPEG, PNG, BMP and WebP pictures keep the format of their image.
    """
    return image if image.suffix.lower() in PICTURES else image.with_name(f"{image.name}.png")


def write_picture(picture: Image, target: Path, scratch: Path | None = None) -> None:
    """Write a picture in the format of its name (PNG if that is none); whole or not at all.

    JPEG holds at most 65,500 pixels a side, WebP 16,383; a larger picture is shrunk to that.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
        RGB.
    target : Path
        Folders on the way are made; a file there is replaced.
    scratch : Path, optional
        A folder of the same disk for the unfinished file; by default that of the picture.
    """
    suffix = target.suffix.lower() if target.suffix.lower() in PICTURES else ".png"
    data = encode_picture(picture, suffix)
    unfinished = (scratch or target.parent) / f".{secrets.token_hex(8)}.tmp"
    try:
        for folder in (target.parent, unfinished.parent):
            folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        os.replace(unfinished, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(target.parent, error) from error
        raise


def encode_picture(picture: NDArray[np.uint8], suffix: str) -> bytes:
    """The bytes of a picture file, shrunk to what its format can hold.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3) or (H, W, 4)
        RGB, or RGBA for a PNG.
    suffix : str
        ".png", ".jpg", ".bmp", ".webp" or another of these.

    Raises
    ------
    OutputError
        The format cannot hold a picture of this size.
    """
    height, width = picture.shape[:2]
    largest = _LARGEST_SIDE.get(suffix, max(height, width))
    if max(height, width) > largest:
        scale = largest / max(height, width)
        size = (max(1, int(width * scale)), max(1, int(height * scale)))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    kind = {".jpe": ".jpg", ".jfif": ".jpg", ".dib": ".bmp"}.get(suffix, suffix)
    swap = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    written, data = cv2.imencode(kind, cv2.cvtColor(picture, swap), PICTURES[suffix])
    if not written:
        raise OutputError(
            f"A picture of {picture.shape[1]}x{picture.shape[0]} pixels cannot be written as "
            f"{suffix}. Choose another format by the output's name, or save=False."
        )
    return data.tobytes()


def _real(path: Path) -> Path:
    """A path with its links resolved; one that is none is refused when it is opened."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(os.path.abspath(path))
