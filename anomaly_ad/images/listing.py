"""Which files of a folder are images, and which are masks that belong to images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, ImageError, PathError
from .decoding import PathLike
from .formats import OTHER_SUFFIXES, SUFFIXES, begins_like_an_image
from .masks import read_mask
from .names import (
    is_for_masks,
    masked_name,
    masked_name_behind,
    without_mask_words,
    words_of,
)

_LOOKED_AT = 24  # files of a folder of masks that are read to see whether they are masks
LISTED = 8  # names in a message


@dataclass(frozen=True)
class Listing:
    """The image files under a folder.

    Parameters
    ----------
    root : Path
        The folder.
    images : tuple of Path
        Files to look at, in the order of their names.
    masks : tuple of Path
        Files that belong to others: masks in folders of such a name, or next to their images.
    others : tuple of Path
        Files that look like images and are of formats that are not read.
    """

    root: Path
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()

    @property
    def passed_over(self) -> str:
        """What is not looked at, in words; empty if that is nothing."""
        parts = []
        if self.masks:
            parts.append(f"{_count(self.masks, 'mask')} ({some_names(self.masks, self.root)})")
        if self.others:
            what = _count(self.others, "file")
            parts.append(f"{what} in unsupported formats ({some_names(self.others, self.root)})")
        return "; ".join(parts)

    def or_error(self, expected: str) -> Listing:
        """Itself, if it has images; DataError otherwise, which says what was `expected`."""
        if self.images:
            return self
        found = f" Found instead: {self.passed_over}." if self.passed_over else ""
        raise DataError(
            f"{self.root} holds no images. Expected files ending in {' '.join(SUFFIXES)} (any "
            f"case), {expected}.{found}"
        )


def find_images(folder: PathLike) -> list[Path]:
    """All image files under a folder, in the order of their names; see `list_images`."""
    return list(list_images(folder).images)


def files_below(folder: PathLike) -> list[Path]:
    """All image files under a folder, masks or not, in the order of their names."""
    return [file for files, _, _ in _walk(Path(folder), frozenset(), False) for file in files]


def list_images(folder: PathLike) -> Listing:
    """All image files under a folder, in the order of their names.

    Files count by their suffix (`formats.SUFFIXES`), in any case. Hidden files and folders (names
    that begin with a dot) are passed over. Links are followed, loops are not.

    Masks are told by the name of a folder below this one (mask, labels, ground_truth, ...) or by
    their own (000_mask.png, 000_GT.png), if an image has the rest of the name; or they lie next to
    their image under the same name (000.jpg and its mask 000.png). They are not images.

    Raises
    ------
    PathError
        The folder, or one in it, does not exist or cannot be listed.
    DataError
        Files may be masks or images: their names say masks, but no image has the name, or they
        are photographs.
    """
    root = Path(folder)
    images: list[Path] = []
    suspects: list[Path] = []
    others: list[Path] = []
    for files, more, below_masks in _walk(root, frozenset(), False):
        others += more
        names = {file.stem for file in files}
        for file in files:
            is_suspect = (
                below_masks
                or masked_name(file.stem) is not None
                or masked_name_behind(file.stem) in names
            )
            (suspects if is_suspect else images).append(file)
        if not below_masks:
            suspects += _twins(files)
    if suspects:
        named = set(suspects)
        images = [file for file in images if file not in named]
        _check_masks(root, images, suspects)
    return Listing(root, tuple(images), tuple(suspects), tuple(others))


def _walk(
    folder: Path, above: frozenset[str], below_masks: bool
) -> Iterator[tuple[list[Path], list[Path], bool]]:
    """Image files, files like images, and whether they lie below a folder of masks."""
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return
    files, folders, others = list_folder(folder)
    yield files, others, below_masks
    for child in folders:
        yield from _walk(child, above | {real}, below_masks or is_for_masks(child.name))


def list_folder(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Image files, folders, and files like images that lie in a folder, each sorted by name."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise PathError(f"{folder}: there is no such folder. Check the path.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise PathError(f"{folder}: the folder cannot be listed ({reason}).") from error
    except ValueError as error:  # a path with a null byte
        raise PathError(f"{str(folder)!r} is not a path: {error}.") from error
    files, folders, others = [], [], []
    for entry in entries:
        path = Path(folder, entry.name)
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            folders.append(path)
        elif path.suffix.lower() in SUFFIXES:
            files.append(path)
        elif path.suffix.lower() in OTHER_SUFFIXES or _looks_like_an_image(path):
            others.append(path)
    return files, folders, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that points at itself
        return False


def _looks_like_an_image(path: Path) -> bool:
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return begins_like_an_image(file.read(16))
    except OSError:
        return False


# ---------------------------------------------------------------------------------- masks


def _twins(files: Sequence[Path]) -> list[Path]:
    """Files of a folder that share their name with another but for the suffix, and are its mask."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_name[file.stem].append(file)
    pairs = [some for some in by_name.values() if len(some) == 2]
    png = [file for some in pairs for file in some if file.suffix.lower() == ".png"]
    sample = _sample(png)
    # Most or none: a folder of photographs saved twice has no masks, and one of masks may hold one
    # that is wrong, which is an error then.
    is_masks = 2 * sum(_is_mask(file) for file in sample) > len(sample)
    return png if is_masks else []


def _check_masks(root: Path, images: Sequence[Path], suspects: Sequence[Path]) -> None:
    """DataError unless files that are named like masks belong to images, and are masks."""
    index = MaskIndex(images)
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in suspects:
        groups[folder_of_masks(file, root)].append(file)
    for folder, files in groups.items():
        where = f"{root} holds {_count(files, 'file')} that may be masks or images: "
        what_to_do = (
            "If they are images, rename the folder or the files, or pass a list of files; if they "
            "are masks, name them after their images or take them out."
        )
        alone = [file for file in files if not index.images_of(file, folder)]
        if len(alone) == len(files):
            raise DataError(
                f"{where}{some_names(files, root)} are named like masks, but no image has such a "
                "name. "
                f"{what_to_do}"
            )
        # A few of those that have an image; each that has none, lest a photograph be overlooked.
        for file in dict.fromkeys([*_sample(files), *alone]):
            if (reason := _why_no_mask(file)) is not None:
                raise DataError(
                    f"{where}{some_names(files, root)} are named like masks of images here, but "
                    f"{reason} {what_to_do}"
                )


def folder_of_masks(file: Path, root: Path) -> Path:
    """The topmost folder of masks that a file lies in; its own folder if it lies next to images."""
    parts = file.relative_to(root).parts[:-1]
    for count, part in enumerate(parts, 1):
        if is_for_masks(part):
            return root.joinpath(*parts[:count])
    return file.parent


def _sample(files: Sequence[Path]) -> list[Path]:
    return list(files[:: max(1, -(-len(files) // _LOOKED_AT))])


def _why_no_mask(file: Path) -> str | None:
    try:
        read_mask(file)
    except (ImageError, PathError) as error:
        return str(error)
    return None


def _is_mask(file: Path) -> bool:
    return _why_no_mask(file) is None


class MaskIndex:
    """Finds the images that a mask may belong to, by their names.

    A mask in a folder of masks belongs to images under that folder's parent whose path ends as
    its own does: of ``ground_truth/dent/000_mask.png`` that is ``test/dent/000.*``, of
    ``masks/000.png`` it is ``images/000.*``, of ``dent/mask/000.png`` it is ``dent/000.*``. A mask
    next to images belongs to the one with its name.
    """

    def __init__(self, images: Iterable[Path]) -> None:
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            self._by_name[image.stem].append(image)

    def images_of(self, mask: Path, folder: Path) -> list[Path]:
        """The images of a mask.

        Parameters
        ----------
        mask : Path
            The mask.
        folder : Path
            Its folder of masks, or the folder in which it lies next to its image.
        """
        apart = is_for_masks(folder.name) and mask.is_relative_to(folder)
        place = folder.parent if apart else folder
        tail = mask.relative_to(folder).parent.parts
        whose = without_mask_words(folder.name) if apart else []
        found = []
        # "0_mask" is the mask of "0", and "0" in a folder of masks that of "0" as well.
        stems = (masked_name(mask.stem), mask.stem, masked_name_behind(mask.stem))
        for name in filter(None, stems):
            for image in self._by_name.get(name, ()):
                if image.is_relative_to(place):
                    above = image.relative_to(place).parent.parts
                    if above[len(above) - len(tail) :] == tail if apart else image.parent == place:
                        found.append(image)
            if found:
                break
        # Of good_masks those next to it in good, if there is such a folder.
        own = [i for i in found if whose and words_of(i.relative_to(place).parts[0]) == whose]
        return own or found


def _count(files: Sequence[Path], what: str) -> str:
    return f"{len(files)} {what}" + ("" if len(files) == 1 else "s")


def some_names(files: Sequence[Path], root: Path) -> str:
    """A few of the files, by their paths within the root."""
    shown = [str(file.relative_to(root)) for file in files[:3]]
    return ", ".join([*shown, "..."] if files[3:] else shown)
