"""Images that a person leaves out of a training, named in a file or a list."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from ..errors import DataError, OptionError, PathError
from ..support import printable
from .decoding import PathLike, check_path
from .folders import TrainingImages
from .formats import SUFFIXES

Exclude = PathLike | Iterable[PathLike]


def without(images: TrainingImages, exclude: Exclude) -> TrainingImages:
    """The images without those that are named.

    Parameters
    ----------
    images : TrainingImages
        Files of good parts, with their groups.
    exclude : path or list of paths
        A text file with one name in a line (empty lines are passed over), or the names: paths
        relative to the folder of the images (of a list: to the folder that they share), as the
        images were given, or absolute; or the name of a file alone where there is one of it.

    Raises
    ------
    PathError
        There is no such text file.
    OptionError
        A name is not a path, or the file holds no text.
    DataError
        Names that match no image, or several; all are listed.
    """
    root, names = located(images)
    paths: dict[str, set[int]] = defaultdict(set)
    files: dict[str, set[int]] = defaultdict(set)
    for index, (path, name) in enumerate(zip(images.paths, names, strict=True)):
        for text in (str(name), str(path), os.path.abspath(path)):
            paths[text].add(index)
            paths[as_line(text)].add(index)
        files[name.name].add(index)
        files[as_line(name.name)].add(index)
    wrong, chosen = [], set()
    for text in _named(exclude):
        plain = os.path.normpath(text)
        # What is relative to the images' folder counts before what is relative to this one.
        found = paths.get(plain) or paths.get(os.path.abspath(plain)) or files.get(plain, set())
        if len(found) == 1:
            chosen |= found
        else:
            several = ", ".join(as_line(names[index]) for index in sorted(found))
            wrong.append(as_line(text) + (f" (matches {several})" if found else " (matches none)"))
    if wrong:
        listed = "\n  ".join(wrong)
        where = "the folder that they share" if root is None or not images.folder else root
        raise DataError(
            f"{len(wrong)} of the names to exclude do not match exactly one of the {len(names)} "
            f"training images. Name them by their paths within {printable(where)}:\n  {listed}"
        )
    kept = [index for index in range(len(names)) if index not in chosen]
    return replace(
        images,
        paths=tuple(images.paths[index] for index in kept),
        groups=tuple(images.groups[index] for index in kept) if images.groups else (),
        excluded=tuple(images.paths[index] for index in sorted(chosen)),
    )


def located(images: TrainingImages) -> tuple[Path | None, list[PurePath]]:
    """The folder of the images and the path of each within it, kept ones before excluded ones.

    Of a list it is the folder that the files share. None, with absolute paths, where they lie on
    several drives.
    """
    paths = [*images.paths, *images.excluded]
    if images.folder is not None:
        return Path(os.path.abspath(images.folder)), [p.relative_to(images.folder) for p in paths]
    absolute = [Path(os.path.abspath(path)) for path in paths]
    try:
        root = Path(os.path.commonpath([path.parent for path in absolute]))
    except ValueError:
        return None, [*absolute]
    return root, [path.relative_to(root) for path in absolute]


def as_line(path: object) -> str:
    r"""A path as one line of text, which `without` takes for it.

    Bytes that are not UTF-8 and line breaks are written as Python escapes them.

    >>> as_line("a\nb.png")
    'a\\x0ab.png'
    """
    return "".join(c if c not in "\r\n\0" else f"\\x{ord(c):02x}" for c in printable(path))


def _named(exclude: Exclude) -> Sequence[str]:
    """The names in a text file or a list, each once."""
    if isinstance(exclude, (str, os.PathLike)):
        return _lines(check_path(exclude, "exclude"))
    if not isinstance(exclude, Iterable) or hasattr(exclude, "columns"):
        raise OptionError(
            "exclude is a text file with one name in a line, or a list of names. Received: "
            f"{exclude!r}."
        )
    return [*dict.fromkeys(str(check_path(name, "A name to exclude")) for name in exclude)]


def _lines(file: Path) -> Sequence[str]:
    if file.suffix.lower() in SUFFIXES:
        raise OptionError(
            f"exclude is a text file with one name in a line, or a list of names. To leave out one "
            f"image pass [{str(file)!r}]."
        )
    try:
        content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        reason = error.strerror or str(error)
        raise PathError(
            f"{file}: the list of images to exclude cannot be read ({reason}). Check the path."
        ) from error
    if b"\0" in content:
        raise OptionError(f"{file} is not a text file with one name in a line.")
    lines = (os.fsdecode(line.removesuffix(b"\r")) for line in content.split(b"\n"))
    return [*dict.fromkeys(line for line in lines if line.strip())]
