"""Labelled images: which are good, which are defective, and where.

A folder is one of these, tried in this order:

1. it holds a folder ``test`` (any case): that one is taken (MVTec layout);
2. it holds images or folders of images.

The first folder on the way to an image whose name says something decides (`names.meaning`): good,
and then all below it is good, or defective. Where none does, the image is defective. Its kind is
the name of that folder or, where none says anything, of the first. Masks lie in a folder
``ground_truth`` in the folder or next to the one that is called test, or as `folders.list_images`
knows them.

A list of files comes with labels, which are read like names of folders.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError, PathError
from . import PathLike, check_path, page_of
from .folders import (
    Listing,
    MaskIndex,
    decided,
    files_below,
    folder_of_masks,
    list_images,
)
from .masks import read_mask
from .names import (
    is_for_masks,
    is_for_test,
    is_for_training,
    is_plainly_good,
    meaning,
)

GOOD = "good"

Labels = Sequence[object] | Mapping[PathLike, object]


@dataclass(frozen=True)
class LabelledImage:
    """An image and what is known of it.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        "good", or the name of the defect.
    mask : Path or None
        File of its mask, see `images.read_mask`. Good images need none.
    """

    path: Path
    kind: str
    mask: Path | None = None

    @property
    def is_defective(self) -> bool:
        """Whether it is not good."""
        return self.kind != GOOD


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images and how they were recognised.

    Parameters
    ----------
    items : tuple of LabelledImage
        In the order of their names, or of the list.
    source : str
        The folder, or "a list of paths".
    layout : str
        What was recognised, in words.
    doubts : tuple of str
        Names of folders, or labels, that may mean good but were not taken for it.
    passed_over : str
        Files that look like images and were left out, in words.
    presumed : tuple of str
        Names that were taken for good though they say more, next to a plain one: good, ok_wrinkle.
    """

    items: tuple[LabelledImage, ...]
    source: str
    layout: str
    doubts: tuple[str, ...] = ()
    passed_over: str = ""
    presumed: tuple[str, ...] = ()

    @property
    def doubt(self) -> str:
        """What to do about `doubts`; empty where there are none."""
        if not self.doubts:
            return ""
        names = ", ".join(repr(name) for name in self.doubts)
        if not self.counts[GOOD]:
            return (
                f"None of these images is labelled good, but {names} may mean good. If so, rename "
                "it to 'good'; for now all of them count as defective."
            )
        return f"{names} may mean good, but counts as defective. If so, rename it to 'good'."

    @property
    def counts(self) -> Counter[str]:
        """Images of each kind."""
        return Counter(item.kind for item in self.items)

    def __str__(self) -> str:
        counts = self.counts
        kinds = [f"{counts[GOOD]} good"] if counts[GOOD] else []
        kinds += [f"{n} {kind}" for kind, n in sorted(counts.items()) if kind != GOOD]
        return f"{', '.join(kinds)} images from {self.source} ({self.layout})"


def find_labelled(
    path: PathLike | Iterable[PathLike], labels: Labels | None = None, *, with_masks: bool = True
) -> LabelledImages:
    """Find labelled images.

    Parameters
    ----------
    path : path or iterable of paths
        A folder, see above; a list of image files, which needs `labels`; or a CSV with the columns
        path and label, see `read_labels`.
    labels : sequence or mapping, optional
        For a list: one label for each file in its order, or by path. False, 0 or "good" is good;
        True or 1 is defective; any other word is the kind of the defect.
    with_masks : bool
        Whether to look for the masks of a folder's images.

    Raises
    ------
    PathError
        A folder or a listed file does not exist.
    DataError
        There are no images, or masks and images do not belong together.
    OptionError
        Labels and files do not match.
    """
    if not isinstance(path, (str, os.PathLike)):
        return _from_list(path, labels)
    if labels is not None:
        raise OptionError(
            f"labels need a list of files, but {path} is one path: images in a folder are labelled "
            "by their subfolders. Pass the files as a list, or leave labels out."
        )
    root = check_path(path, "The folder of labelled images")
    if root.suffix.lower() == ".csv" and not root.is_dir():
        return replace(_from_list(*read_labels(root)), source=str(root))
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise PathError(f"{root} {what}; name a folder of labelled images, or a list with labels.")
    folder = _labelled_folder(root)
    layout = "" if folder == root else "MVTec layout, "
    listing = list_images(folder).or_error("in a folder 'good' and in folders named after defects")
    items = _in_kinds(listing.images, folder)
    if with_masks:
        items = _with_masks(items, _masks(root, folder, listing), folder)
    is_defective = [item.is_defective for item in items]
    if all(is_defective):
        layout += "no folder good/: all are defective"
    elif not any(is_defective):
        layout += "all are good"
    else:
        layout += "good/ and folders of defects"
    if any(item.mask is not None for item in items):
        layout += ", with masks"
    ways = [(item, item.path.relative_to(folder).parts[:-1]) for item in items]
    silent = [(item, way) for item, way in ways if decided(way)[0] == "neutral"]
    undecided = {name for item, way in silent if item.is_defective for name in way}
    good = {name for item, way in ways for name in way if meaning(name) == GOOD}
    plain = {name for name in good if is_plainly_good(name)}
    return LabelledImages(
        tuple(items),
        str(root),
        layout,
        _doubts(undecided, [item.path.stem for item, _ in silent]),
        replace(listing, masks=()).passed_over,
        tuple(sorted(good - plain)) if plain else (),
    )


def has_test_folder(root: Path) -> bool:
    """Whether a folder holds one named test (any case), as in rule 1."""
    return any(is_for_test(folder.name) for folder in _folders(root))


def _labelled_folder(root: Path) -> Path:
    """The folder whose images are meant; a data set's training images never are."""
    children = _folders(root)
    test = [folder for folder in children if is_for_test(folder.name)]
    good = [folder for folder in children if meaning(folder.name) == GOOD]
    train = [folder for folder in children if is_for_training(folder.name)]
    if test and len(test) + len(good) > 1:
        names = " and ".join(folder.name for folder in [*test, *good])
        raise DataError(f"{root} holds both {names}: which one is meant? Pass that folder itself.")
    if train and not test:
        others = ", ".join(folder.name for folder in children if folder not in train) or "nothing"
        raise DataError(
            f"{root} holds {train[0].name}, whose images are for training, but no folder 'test' "
            f"(next to it: {others}). Pass the folder of labelled images itself."
        )
    return test[0] if test else root


def _folders(folder: Path) -> list[Path]:
    try:
        return [entry for entry in sorted(folder.iterdir()) if entry.is_dir()]
    except OSError as error:
        raise PathError(f"{folder}: the folder cannot be listed ({error.strerror}).") from error


def _in_kinds(files: Sequence[Path], folder: Path) -> list[LabelledImage]:
    """Files with what the names of their folders say."""
    ways = {file.parent: file.relative_to(folder).parts[:-1] for file in files}
    said = {way: decided(way) for way in ways.values()}
    for way in said:
        _refuse_way(folder, way, said[way][0])
    if meaning(folder.absolute().name) == GOOD and {found for found, _ in said.values()} <= {
        "neutral"
    }:
        return [LabelledImage(file, GOOD) for file in files]
    items = []
    for file in files:
        way = ways[file.parent]
        found, name = said[way]
        kind = GOOD if found == GOOD else name or (way[0] if way else "defective")
        items.append(LabelledImage(file, kind))
    return items


def _refuse_way(folder: Path, way: Sequence[str], found: str) -> None:
    if found == "unclear":
        raise DataError(
            f"{folder.joinpath(*way)}: the names of its folders say both good and defective. Name "
            "the folder of labelled images itself, rename one of them, or pass a list with labels."
        )
    training = [name for name in way if is_for_training(name)]
    if training:
        raise DataError(
            f"{folder.joinpath(*way)}: the name {training[0]} says it is for training; a model "
            "would be tested on what it was trained on. Pass the folder of labelled images itself."
        )


def _doubts(names: Iterable[str], stems: Sequence[str] = ()) -> tuple[str, ...]:
    """Names that may mean good; of files of which no folder says anything, the first good one."""
    doubts = sorted({name for name in names if meaning(name) == "unclear"})
    said = {meaning(stem): stem for stem in reversed(stems)}
    if "good" in said:
        doubts.append(said["good"])
    return tuple(doubts)


def _masks(root: Path, folder: Path, listing: Listing) -> list[tuple[Path, Path]]:
    """Masks, each with its folder of masks: among the images, or in a folder next to them."""
    found = [(mask, folder_of_masks(mask, listing.root)) for mask in listing.masks]
    siblings = [folder.absolute().parent] if is_for_test(folder.absolute().name) else []
    seen = {os.path.realpath(mask) for mask, _ in found}
    for place in dict.fromkeys([root, *siblings]):
        for masks in _folders(place):
            if is_for_masks(masks.name) and not masks.is_relative_to(folder):
                new = [m for m in files_below(masks) if os.path.realpath(m) not in seen]
                seen |= {os.path.realpath(mask) for mask in new}
                found += [(mask, masks) for mask in new]
    return found


def _with_masks(
    items: list[LabelledImage], masks: Iterable[tuple[Path, Path]], root: Path
) -> list[LabelledImage]:
    """Give each defective image its mask; those of good images are left out.

    Where no name says of any image that it is good, those are whose masks mark nothing.
    """
    by_path = {item.path.absolute(): item for item in items}
    index = MaskIndex(by_path)
    of: dict[Path, Path] = {}
    alone: list[Path] = []
    for mask, folder in masks:
        images = index.images_of(mask.absolute(), folder.absolute())
        defective = [image for image in images if by_path[image].is_defective]
        tail = mask.relative_to(folder).parts[:-1]
        if len(defective) > 1:
            raise DataError(
                f"The mask {mask} may belong to {' or '.join(map(str, defective[:3]))}. Put it "
                "into a folder of the same name as its image's."
            )
        if defective and defective[0] in of:
            raise DataError(
                f"{defective[0]} has two masks, {of[defective[0]]} and {mask}. Keep one of them."
            )
        if defective:
            of[defective[0]] = mask
        elif not images and not any(meaning(name) == GOOD for name in tail):
            alone.append(mask)
    if alone:
        listed = ", ".join(str(file) for file in alone[:3])
        raise DataError(
            f"{len(alone)} masks have no image: {listed}{', ...' if alone[3:] else ''}. "
            "A mask is ground_truth/<defect>/<name>_mask.png for the image <defect>/<name>.*, or "
            "lies next to its image; restore the images, or remove the masks."
        )
    by_masks = all(item.is_defective for item in items)

    def masked(item: LabelledImage) -> LabelledImage:
        mask = of.get(item.path.absolute())
        says_nothing = decided(item.path.relative_to(root).parts[:-1])[0] == "neutral"
        if by_masks and says_nothing and mask is not None and not read_mask(mask).any():
            return replace(item, kind=GOOD)
        return replace(item, mask=mask)

    return [masked(item) for item in items]


def _from_list(paths: Iterable[PathLike], labels: Labels | None) -> LabelledImages:
    files = [check_path(path, "A labelled image") for path in paths]
    if labels is None:
        raise OptionError("A list of files needs labels: which are good, and which are not.")
    if not files:
        raise DataError("The list of labelled images is empty.")
    missing = [file for file in files if not page_of(file)[0].is_file()]
    if missing:
        raise PathError(f"{missing[0]}: there is no such file. Check the list of labelled images.")
    values = by_file(files, labels, "label")
    items = [LabelledImage(f, _kind(value)) for f, value in zip(files, values, strict=True)]
    words = [value for value in values if isinstance(value, str)]
    return LabelledImages(tuple(items), "a list of paths", "labels by file", _doubts(words))


def by_file(files: Sequence[Path], given: Labels, what: str) -> list[object]:
    """What was given for each of some files, in the order of the files or by path.

    Parameters
    ----------
    files : sequence of Path
        The files.
    given : sequence or mapping
        One value for each file; the paths of a mapping may be absolute or not.
    what : str
        What a value is called in messages: "label".

    Raises
    ------
    OptionError
        There is not exactly one value for each file.
    """
    mismatch = f"{what.capitalize()}s and files do not match"
    if isinstance(given, Mapping):
        paths = [check_path(path, f"The path of a {what}") for path in given]
        by_path = dict(zip(map(os.path.abspath, paths), given.values(), strict=True))
        named = {os.path.abspath(file) for file in files}
        without = sorted(named - by_path.keys())
        unnamed = sorted(by_path.keys() - named)
        if without or unnamed:
            odd = [f"no {what} for {name}" for name in without[:2]]
            odd += [f"no file for the {what} of {name}" for name in unnamed[:2]]
            raise OptionError(f"{mismatch}: {'; '.join(odd)}.")
        return [by_path[os.path.abspath(file)] for file in files]
    if not isinstance(given, Iterable) or isinstance(given, (Set, str, bytes)):
        raise OptionError(
            f"{what.capitalize()}s are a list in the order of the files, or a dictionary by path. "
            f"Received: {given!r}."
        )
    values = list(given)
    if len(values) != len(files):
        raise OptionError(f"{mismatch}: {len(values)} {what}s for {len(files)} files.")
    return values


def read_fitting_mask(path: Path, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The mask of an image of the size (height, width); DataError if it has another.

    All else as `images.read_mask`.
    """
    mask = read_mask(path)
    if mask.shape != tuple(size):
        raise DataError(
            f"The mask {path} is {mask.shape[0]}x{mask.shape[1]} pixels and its image "
            f"{size[0]}x{size[1]} (height x width). A mask has its image's size."
        )
    return mask


def read_labels(path: PathLike) -> tuple[list[Path], list[str]]:
    """A table with the columns path and label -> files and their labels.

    A relative path counts from the folder of the table.

    Raises
    ------
    PathError, DataError
        There is no such table, or it lacks a column.
    """
    table = check_path(path, "The table of labels")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise PathError(
            f"{table}: the table of labels cannot be read ({error.strerror})."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table} is not a table of labels ({error}). Save it as CSV, UTF-8."
        ) from error
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise DataError(
            f"{table} is not a table of labels: it needs the columns path and label, and a line "
            "for each image."
        )
    return [table.parent / (row["path"] or "") for row in rows], [
        row["label"] or "" for row in rows
    ]


def _kind(label: object) -> str:
    if isinstance(label, str):
        word = label.strip()
        try:
            label = float(word)
        except ValueError:
            if word.lower() in ("true", "false"):
                return GOOD if word.lower() == "false" else "defective"
            if word:
                return GOOD if meaning(word) == GOOD else word
    if label in (0, 1):
        return "defective" if label else GOOD
    raise OptionError(
        f"A label is False, 0 or 'good', True or 1, or the name of a defect. Received: {label!r}."
    )
