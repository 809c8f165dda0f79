"""What is to be scored: paths one by one, never all of them in memory as objects."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ..errors import DataError, OptionError, PathError
from ..images import SUFFIXES, PathLike, check_path, list_images, page_of
from ..images.names import is_for_masks, masked_name
from .storage import Storage, is_address

_AT_A_TIME = 65_536  # rows of a list
COLUMN = "path"


def paths_of(source: Any) -> Iterator[str]:
    """The images that a source names, as absolute paths or addresses; some may come twice.

    Parameters
    ----------
    source : path, address or iterable of these
        A folder (as for `AD.predict`), an image, a Parquet file with a column ``path``, or several
        of these.

    Raises
    ------
    PathError, DataError
        There is nothing there, or a list has no such column.
    OptionError
        It is something else.
    """
    if isinstance(source, (str, os.PathLike)):
        yield from _of_one(source)
    elif isinstance(source, Iterable) and not hasattr(source, "shape"):
        for item in source:
            if not isinstance(item, (str, os.PathLike)):
                raise _not_paths(item)
            yield from _of_one(item, in_list=True)
    else:
        raise _not_paths(source)


def folders_of(source: Any) -> list[Storage]:
    """The folders that are named, and those of lists that are."""
    named = [source] if isinstance(source, (str, os.PathLike)) else source
    found = []
    for each in named if isinstance(named, (list, tuple)) else ():
        if isinstance(each, (str, os.PathLike)) and str(each):
            place = Storage.of(each, "What to score")
            if (place.is_local and os.path.isdir(place.name)) or (
                not place.is_local and not _is_image(place.name)
            ):
                found.append(place)
    return found


def _not_paths(received: Any) -> OptionError:
    return OptionError(
        "predict_dataset takes a folder, an image, a Parquet file with a column `path`, or a list "
        f"of these, by path or address. Received: {type(received).__name__}."
    )


def _of_one(source: PathLike, in_list: bool = False) -> Iterator[str]:
    name = str(source)
    if name.lower().endswith(".parquet"):
        yield from _of_list(Storage.of(source, "What to score"))
    elif not (place := Storage.of(source, "What to score")).is_local:
        if in_list and _is_image(name):
            yield place.name  # what is not there becomes an error in its row
        else:
            yield from _below(place)
    elif is_address(source):
        yield from _of_one(place.name, in_list)
    elif os.path.isdir(path := check_path(source, "What to score")):
        listing = list_images(path)
        if not listing.images and not in_list:
            raise PathError(f"{path} holds no images. Expected files ending in {_suffixes()}.")
        for file in listing.images:
            yield os.path.abspath(file)
    elif in_list or os.path.lexists(page_of(path)[0]):
        yield os.path.abspath(path)  # what is not there becomes an error in its row
    else:
        raise PathError(f"{path}: there is no such file or folder. Check the path.")


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _suffixes() -> str:
    return f"{' '.join(SUFFIXES)}, any case"


def _of_list(place: Storage) -> Iterator[str]:
    try:
        with pq.ParquetFile(place.path, filesystem=place.system) as file:
            if COLUMN not in file.schema_arrow.names:
                raise DataError(
                    f"{place.name} has no column {COLUMN!r}. Its columns: "
                    f"{', '.join(file.schema_arrow.names)}."
                )
            for batch in file.iter_batches(_AT_A_TIME, columns=[COLUMN]):
                for value in batch.column(0).to_pylist():
                    if not isinstance(value, str) or not value:
                        raise DataError(
                            f"{place.name}: a path is a text that is not empty. Found: {value!r}."
                        )
                    yield Storage.of(value, "A path of the list").name
    except FileNotFoundError as error:
        raise PathError(f"{place.name}: there is no such file. Check the path.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{place.name} is not a Parquet file that can be read: {error}") from error


def _below(place: Storage) -> Iterator[str]:
    """Images below an address; hidden ones are passed over, and masks by their names."""
    info = place.info()
    if info.type == pafs.FileType.NotFound:
        raise PathError(f"{place.name}: there is no such file or folder. Check the address.")
    if info.type == pafs.FileType.File:
        yield place.name
        return
    start = len(place.path.rstrip("/")) + 1
    found = False
    try:
        listed = place.system.get_file_info(pafs.FileSelector(place.path, recursive=True))
    except Exception as error:
        raise PathError(f"{place.name} cannot be listed: {error}") from error
    for each in listed:
        inner = PurePosixPath(each.path[start:])
        is_hidden = any(part.startswith(".") for part in inner.parts)
        is_mask = masked_name(inner.stem) is not None or any(map(is_for_masks, inner.parts[:-1]))
        if each.is_file and _is_image(inner.name) and not is_hidden and not is_mask:
            found = True
            yield place.inside(str(inner)).name
    if not found:
        raise PathError(f"{place.name} holds no images. Expected files ending in {_suffixes()}.")
