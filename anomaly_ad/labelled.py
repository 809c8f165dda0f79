"""Images that someone has judged: which are good, which are defective, and where.

A folder is one of these, tried in this order:

1. it holds a folder ``test`` (any case): that one is taken, and masks from ``ground_truth`` beside
   it (MVTec layout);
2. it holds images or folders of images: those that lie in a folder ``good`` (any case), however
   deep, are good, all others are defective, and the first folder's name is their kind; masks from
   ``ground_truth`` in it or, if it is called test, beside it.

A list of files comes with labels.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError, PathError
from .images import SUFFIXES, PathLike, find_images, read_mask

GOOD = "good"
_MASKS = "ground_truth"

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
    """Judged images and how they were recognised.

    Parameters
    ----------
    items : tuple of LabelledImage
        In the order of their names, or of the list.
    source : str
        The folder, or "a list of paths".
    layout : str
        What was recognised, in words.
    masks : Path or None
        The folder of masks.
    """

    items: tuple[LabelledImage, ...]
    source: str
    layout: str
    masks: Path | None = None

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
    """Find judged images.

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
            f"labels belong to a list of files; {path} is one path, and a folder's images are "
            "judged by the folders they lie in. Pass the files as a list, or leave labels out."
        )
    root = Path(path)
    if root.suffix.lower() == ".csv" and not root.is_dir():
        return replace(_from_list(*read_labels(root)), source=str(root))
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise PathError(f"{root} {what}; name a folder of judged images, or a list with labels.")
    folder, layout = root, ""
    children = _folders(root)
    if "test" in children and GOOD in children:
        raise DataError(
            f"{root} holds both {children['test'].name} and {children[GOOD].name}: which one is "
            "meant? Name the folder itself."
        )
    if "test" in children:
        folder = children["test"]
        layout = "MVTec layout, "
    files = find_images(folder)
    masks = _mask_folder(root, folder)
    if masks is not None:
        files = [file for file in files if not file.is_relative_to(masks)]
    if not files:
        raise DataError(
            f"{folder} holds no images. Expected files ending in {' '.join(SUFFIXES)} (any case), "
            "in a folder 'good' and in folders named after defects."
        )
    items = [_in_kind(file, folder) for file in files]
    is_defective = [item.is_defective for item in items]
    if all(is_defective):
        layout += "no folder good/: all are defective"
    elif not any(is_defective):
        layout += "all are good"
    else:
        layout += "good/ and folders of defects"
    if masks is not None and with_masks:
        items = _with_masks(items, folder, masks)
    if any(item.mask is not None for item in items):
        layout += ", with masks"
    return LabelledImages(tuple(items), str(root), layout, masks)


def has_test_folder(root: Path) -> bool:
    """Whether a folder holds one named test (any case), as in rule 1."""
    return "test" in _folders(root)


def _folders(folder: Path) -> dict[str, Path]:
    """Folders in a folder by their names in lower case."""
    try:
        return {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    except OSError as error:
        raise PathError(f"{folder}: the folder cannot be listed ({error.strerror}).") from error


def _mask_folder(root: Path, folder: Path) -> Path | None:
    """``ground_truth`` in the named folder, in the one that is taken, or beside one named test."""
    beside = [folder.absolute().parent] if folder.absolute().name.lower() == "test" else []
    for place in dict.fromkeys([root, folder, *beside]):
        if place.is_dir() and _MASKS in (found := _folders(place)):
            return found[_MASKS]
    return None


def _in_kind(file: Path, folder: Path) -> LabelledImage:
    above = file.relative_to(folder).parts[:-1]
    if GOOD in [name.lower() for name in (folder.absolute().name, *above)]:
        return LabelledImage(file, GOOD)
    return LabelledImage(file, above[0] if above else "defective")


def _with_masks(items: list[LabelledImage], folder: Path, masks: Path) -> list[LabelledImage]:
    """Give each defective image its mask: ground_truth/<kind>/<name>_mask.png or <name>.png."""
    unused = {file.relative_to(masks).with_suffix(""): file for file in find_images(masks)}
    out = []
    for item in items:
        mask = None
        if item.is_defective:
            name = item.path.relative_to(folder).with_suffix("")
            for candidate in (name.with_name(f"{name.name}_mask"), name):
                mask = mask or unused.pop(candidate, None)
        out.append(LabelledImage(item.path, item.kind, mask))
    alone = [file for place, file in unused.items() if place.parts[0].lower() != GOOD]
    if alone:
        listed = ", ".join(str(file) for file in alone[:3])
        raise DataError(
            f"{len(alone)} masks in {masks} have no image: {listed}{', ...' if alone[3:] else ''}. "
            "A mask is ground_truth/<defect>/<name>_mask.png for the image <defect>/<name>.*; "
            "bring the images back, or take the masks away."
        )
    return out


def _from_list(paths: Iterable[PathLike], labels: Labels | None) -> LabelledImages:
    files = [Path(path) for path in paths]
    if labels is None:
        raise OptionError("A list of files needs labels: which are good, and which are not.")
    if not files:
        raise DataError("The list of judged images is empty.")
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise PathError(f"{missing[0]}: there is no such file. Check the list of judged images.")
    if isinstance(labels, Mapping):
        by_path = {os.path.abspath(path): label for path, label in labels.items()}
        named = {os.path.abspath(file) for file in files}
        without = sorted(named - by_path.keys())
        beside = sorted(by_path.keys() - named)
        if without or beside:
            odd = [f"no label for {name}" for name in without[:2]]
            odd += [f"no file in the list for the label of {name}" for name in beside[:2]]
            raise OptionError(f"Labels and files do not match: {'; '.join(odd)}.")
        values = [by_path[os.path.abspath(file)] for file in files]
    else:
        values = list(labels)
        if len(values) != len(files):
            raise OptionError(
                f"Labels and files do not match: {len(values)} labels for {len(files)} files."
            )
    items = [LabelledImage(f, _kind(value)) for f, value in zip(files, values, strict=True)]
    return LabelledImages(tuple(items), "a list of paths", "labels by file")


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
    table = Path(path)
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise PathError(
            f"{table}: the table of labels cannot be read ({error.strerror})."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table} is no table of labels ({error}). Save it as CSV, UTF-8."
        ) from error
    if not rows or not {"path", "label"} <= rows[0].keys():
        raise DataError(
            f"{table} is no table of labels: it needs the columns path and label, and a line for "
            "each image."
        )
    return [table.parent / (row["path"] or "") for row in rows], [
        row["label"] or "" for row in rows
    ]


def _kind(label: object) -> str:
    if isinstance(label, str):
        word = label.strip()
        known = {"false": GOOD, GOOD: GOOD, "true": "defective"}
        try:
            label = float(word)
        except ValueError:
            if word:
                return known.get(word.lower(), word)
    if label in (0, 1):
        return "defective" if label else GOOD
    raise OptionError(
        f"A label is False, 0 or 'good', True or 1, or the name of a defect. Received: {label!r}."
    )
