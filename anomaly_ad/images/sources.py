"""What is to be inspected: files, a folder, images in memory, or anything that yields these."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, PathError
from .arrays import check_array, is_image, is_pil
from .decoding import PathLike, check_path, page_of
from .folders import list_images
from .formats import SUFFIXES
from .framing import Framing
from .photograph import Photograph

# A path or an image in memory: an RGB array, or an image of Pillow (of which nothing is imported).
OneInput = PathLike | NDArray[np.uint8] | Any
PredictInput = OneInput | Iterable[OneInput]


@dataclass(frozen=True, eq=False)
class Source:
    """An image to inspect: a file, or one in memory, and the relative path of its picture."""

    name: str
    path: Path | None
    image: Any
    relative: Path
    # Whether an image in memory has a name of the user's, which its prediction has as its path.
    is_named: bool = field(default=False, kw_only=True)

    def read(self, framing: Framing) -> Photograph:
        """The image, as a model needs it."""
        if self.image is not None:
            return Photograph.of_array(self.image, framing)
        assert self.path is not None
        return Photograph.read(self.path, framing)


@dataclass(frozen=True)
class Sources:
    """What a call of predict is about.

    Parameters
    ----------
    items : iterable of Source
        In order. A list, or what is drawn one by one from an iterator of the user's.
    count : int or None
        How many there are; None where they are drawn one by one, perhaps without end.
    single : bool
        Whether one image was named, so that one prediction comes back.
    root : Path or None
        The folder that was named, if it was one.
    passed_over : str
        Files in it that look like images and are not inspected, in words.
    """

    items: Iterable[Source]
    count: int | None
    single: bool = False
    root: Path | None = None
    passed_over: str = ""


def find_sources(path: Any, *, deep: bool = False) -> Sources:
    """An image file, a folder, an iterable of either files or images, or an image -> the images.

    A list is looked at as a whole now; from an iterator nothing is drawn before it is needed.
    `deep` is whether the model is for images of more than 8 bits.

    Raises
    ------
    PathError, OptionError, ImageError, DataError
        There is nothing there, or it is something else.
    """
    if _is_named(path):
        return Sources([_image_source(0, path)], 1, single=True)
    if is_pil(path) or (isinstance(path, np.ndarray) and path.dtype.kind not in "OUS"):
        if not is_pil(path) and path.ndim == 4 and len(path):
            if path.shape[3] not in (1, 3, 4) or not (path.dtype == np.uint8 or deep):
                check_array(path)  # says what it is, and what to do
            return Sources([_image_source(i, image) for i, image in enumerate(path)], len(path))
        return Sources([_image_source(0, path)], 1, single=True)
    if isinstance(path, np.ndarray) and path.ndim == 0:
        path = path.item()
    if isinstance(path, (str, os.PathLike)):
        return _path_sources(check_path(path, "What to inspect"))
    if _is_no_list(path):
        check_array(path)  # says what it is, and what to do
    if not isinstance(path, Iterable):
        raise OptionError(
            "predict takes an image file, a folder, a list of files or images, or an RGB array. "
            f"Received: {path!r}."
        )
    if not isinstance(path, Sized):
        return Sources(_drawn(path), None)
    listed = [_checked(item) for item in path]
    if not listed:
        raise OptionError("The list of images to predict is empty.")
    return Sources(_list_sources(listed), len(listed))


def file_sources(paths: Sequence[Path]) -> list[Source]:
    """Files that are known to be images, as sources."""
    return _list_sources(paths) if paths else []


def _is_no_list(path: Any) -> bool:
    """Whether something that can be iterated over is an image of another library, or a table."""
    if hasattr(path, "columns"):
        raise OptionError(
            "predict takes a list of files. Received a table; pass its column of paths: "
            "table['path']."
        )
    is_array = hasattr(path, "shape") and hasattr(path, "dtype") and not hasattr(path, "index")
    is_numeric = isinstance(path, (bytes, bytearray, memoryview)) or is_array
    return is_numeric and not isinstance(path, np.ndarray)


def _path_sources(path: Path) -> Sources:
    if os.path.isdir(path):
        listing = list_images(path)
        if not listing.images:
            found = f" Found instead: {listing.passed_over}." if listing.passed_over else ""
            raise PathError(
                f"{path} holds no images. Expected files ending in {' '.join(SUFFIXES)}, any case."
                f"{found}"
            )
        items = [Source(str(f), f, None, f.relative_to(path)) for f in listing.images]
        return Sources(items, len(items), root=path, passed_over=listing.passed_over)
    if not os.path.lexists(page_of(path)[0]):
        raise PathError(
            f"{path}: there is no such file or folder, or you may not read it. Check the path."
        )
    return Sources([Source(str(path), path, None, Path(path.name))], 1, single=True)


def _is_named(item: Any) -> bool:
    """Whether it is a pair (name, image)."""
    return (
        isinstance(item, tuple)
        and len(item) == 2
        and isinstance(item[0], str)
        and is_image(item[1])
    )


def _checked(item: Any) -> Any:
    """An item of a list, if it is a path, an image, or an image with its name."""
    if is_image(item) or _is_named(item):
        return item
    if isinstance(item, (str, os.PathLike)):
        return check_path(item, "An item of a list to predict")
    if hasattr(item, "shape") or isinstance(item, (bytes, bytearray, memoryview)):
        check_array(item)  # says what it is, and what to do
    raise OptionError(
        f"A list to predict holds paths, images, or pairs (name, image). Received: {item!r}."
    )


def _image_source(index: int, item: Any) -> Source:
    if not _is_named(item):
        name = f"array_{index:05d}.png"
        return Source(name, None, item, Path(name))
    name, image = item
    path = PurePath(name)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise OptionError(
            f"The name of an image is a relative path, such as 'part_17'. Received: {name!r}."
        )
    # Its picture keeps the name: what looks like a suffix may be a part of it.
    is_suffixed = path.suffix.lower() in SUFFIXES
    relative = Path(name if is_suffixed else f"{name}.png")
    return Source(name, None, image, relative, is_named=True)


def _list_sources(listed: Sequence[Any]) -> list[Source]:
    in_memory = [is_image(item) or _is_named(item) for item in listed]
    paths = [item for item, is_array in zip(listed, in_memory, strict=True) if not is_array]
    names = iter(relative_names([Path(os.path.abspath(path)) for path in paths]))
    found = [
        _image_source(index, item) if is_array else Source(str(item), item, None, Path(next(names)))
        for index, (item, is_array) in enumerate(zip(listed, in_memory, strict=True))
    ]
    twice = [
        n for n, count in Counter(s.relative for s in found if s.is_named).items() if count > 1
    ]
    if twice:
        raise OptionError(
            f"Two images of the list have the name {str(twice[0])!r}, so one picture would replace "
            "the other. Give each its own."
        )
    return found


def _drawn(items: Iterable[Any]) -> Iterator[Source]:
    """Sources one by one. What they have in common is not known, so names keep all there is."""
    here = Path.cwd()
    for index, item in enumerate(items):
        if is_image(_checked(item)) or _is_named(item):
            yield _image_source(index, item)
            continue
        absolute = Path(os.path.abspath(item))
        inside = absolute.is_relative_to(here)
        name = absolute.relative_to(here) if inside else Path(*_folders(absolute))
        yield Source(str(item), Path(item), None, name)


def relative_names(paths: Sequence[PurePath]) -> list[PurePath]:
    """Absolute paths without what they have in common: a/1.png and b/1.png stay two.

    Where they lie on several drives, each drive is a folder: C:/x/1.png and D:/x/1.png become
    C/x/1.png and D/x/1.png.
    """
    parts = [_folders(path) for path in paths]
    shared = 0
    for level in zip(*(some[:-1] for some in parts), strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    kinds = [type(path) for path in paths]
    return [kind(*some[shared:]) for kind, some in zip(kinds, parts, strict=True)]


def in_folders(path: Path) -> Path:
    """An absolute path as a relative one; a drive or a share is a folder."""
    return Path(*_folders(path))


def _folders(path: PurePath) -> list[str]:
    """The parts of an absolute path; a drive or a share is a folder."""
    drive = re.sub(r"\W+", "_", path.drive).strip("_").upper()
    return [*([drive] if drive else []), *path.parts[1:]]
