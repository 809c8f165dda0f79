"""Image files in folders: which there are, which are masks, and which training may learn from.

This is the only grammar of folders; `labelled` reads labelled images by it. docs/data.md has a
table of layouts and what becomes of them, which the tests run.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import DataError, OptionError, PathError
from ..support import printable
from .decoding import PathLike, check_path, page_of
from .listing import (
    LISTED,
    Listing,
    MaskIndex,
    files_below,
    folder_of_masks,
    list_folder,
    list_images,
    some_names,
)
from .masks import read_mask
from .names import (
    Meaning,
    is_for_masks,
    is_for_test,
    is_for_training,
    is_plainly_good,
    meaning,
)

# ------------------------------------------------------------- what training may learn from


@dataclass(frozen=True)
class TrainingImages:
    """Files of good parts.

    Parameters
    ----------
    folder : Path or None
        The folder they were found in; None for a list.
    paths : tuple of Path
        The files.
    passed_over : tuple of str
        What else was found and is not learnt from, in words.
    groups : tuple of str
        The group of each file, see `groups.grouped`; empty where each is by itself.
    grouped_by : str
        The expression that they come from, or "labels".
    excluded : tuple of Path
        Files that a person leaves out, see `exclusion.without`; they are not among `paths`.
    """

    folder: Path | None
    paths: tuple[Path, ...]
    passed_over: tuple[str, ...] = field(default=())
    groups: tuple[str, ...] = ()
    grouped_by: str = ""
    excluded: tuple[Path, ...] = ()

    @property
    def grouping(self) -> str:
        """How many groups there are and how large: "52 groups of 1 to 4 images"."""
        sizes = sorted(Counter(self.groups).values())
        span = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        groups = "1 group" if len(sizes) == 1 else f"{len(sizes)} groups"
        return f"{groups} of {span} images"

    def __str__(self) -> str:
        where = "a list of paths" if self.folder is None else printable(self.folder)
        text = f"{len(self.paths)} images of good parts from {where}"
        folders = sorted(
            {str(path.parent.relative_to(self.folder)) for path in self.paths}
            if self.folder
            else ()
        )
        if len(folders) > 1:
            shown = ", ".join(folders[:LISTED]) + (", ..." if folders[LISTED:] else "")
            text += f" (in {len(folders)} folders: {printable(shown)})"
        if self.groups:
            text += f", {self.grouping}"
        if self.excluded:
            text += f", {len(self.excluded)} excluded"
        if self.passed_over:
            text += f". Not used: {printable('; '.join(self.passed_over))}"
        return text


def find_training_images(path: PathLike | Iterable[PathLike]) -> TrainingImages:
    """Find the images of good parts, and refuse rather than learn from a defect.

    A list is taken as it is. In a folder:

    1. a folder in it named ``train`` (any case) is used instead of it, and nothing next to it;
    2. a folder in it whose name means good (`names.meaning`), if there is exactly one, is used
       instead of it, and nothing next to it. Below it every name is good that does not say the
       opposite;
    3. otherwise the images in it are taken, unless a folder next to them or its own name says that
       they are not of good parts only (defects, tests, masks);
    4. where there are none: of several folders those images that lie in one that is good, if all
       others lie in one of defects; or those of its only folder, by rules 2 to 4 again. All else
       is refused.

    Raises
    ------
    PathError
        The folder or a listed file does not exist.
    DataError
        No images are found, or some might show defects; the message lists what was found.
    """
    if not isinstance(path, (str, os.PathLike)):
        return TrainingImages(None, _check_list(path))
    folder = check_path(path, "The folder of good images")
    if os.path.isfile(page_of(folder)[0]):
        raise DataError(
            f"{folder} is a file; training takes a folder of images of good parts, or a list "
            "of image files."
        )
    train = [child for child in list_folder(folder)[1] if is_for_training(child.name)]
    if len(train) > 1:
        names = ", ".join(child.name for child in train)
        raise DataError(f"{folder} holds {names}: which one is meant? Pass that folder itself.")
    return _good_images(_Contents(train[0] if train else folder), by_name=not train)


def decided(names: Sequence[str]) -> tuple[Meaning, str]:
    """What the folders on the way to an image say of it, and the name that decides.

    Good and defective on one way contradict each other: "unclear".
    """
    said = [(meaning(name), name) for name in names]
    telling = [(found, name) for found, name in said if found in ("good", "defective")]
    if not telling:
        return "neutral", ""
    if len({found for found, _ in telling}) > 1:
        return "unclear", "/".join(names)
    return telling[0]


class _Contents:
    """What lies in a folder, and which images below each folder in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files, folders, self.others = list_folder(folder)
        self.children = {child: files_below(child) for child in folders}

    @property
    def _filled(self) -> list[Path]:
        return [child for child, files in self.children.items() if files]

    @property
    def plain(self) -> list[Path]:
        """Folders with images that are not masks by their name."""
        return [child for child in self._filled if not is_for_masks(child.name)]

    @cached_property
    def good(self) -> list[Path]:
        """Folders whose names mean good; of several the plain one (good, not ok_wrinkle)."""
        good = [child for child in self.plain if meaning(child.name) == "good"]
        plain = [child for child in good if is_plainly_good(child.name)]
        return plain if len(plain) == 1 else good

    @cached_property
    def telling(self) -> list[Path]:
        """Folders that say that not all here is good."""
        return [child for child in self.plain if _says_not_good(child.name)]

    @cached_property
    def by_decision(self) -> dict[Meaning, list[Path]]:
        """The images below plain folders by what the names on their way say."""
        found: dict[Meaning, list[Path]] = defaultdict(list)
        for child in self.plain:
            for file in self.children[child]:
                names = file.relative_to(self.folder).parts[:-1]
                is_other = any(is_for_test(name) or is_for_masks(name) for name in names)
                found["unclear" if is_other else decided(names)[0]].append(file)
        return found

    def __str__(self) -> str:
        found = [f"{child.name} ({_images(len(n))})" for child, n in self.children.items()]
        shown = found[:LISTED] + ([f"{len(found) - LISTED} more"] if found[LISTED:] else [])
        loose = [f"{_images(len(self.files))} in the folder itself"] if self.files else []
        return ", ".join([*loose, *shown])


_ADVICE = (
    "Pass the folder of good images itself (good, ok, gut ... are known names), or a list of files."
)


def _good_images(here: _Contents, *, by_name: bool) -> TrainingImages:
    """Rules 2 to 4; `by_name`: the folder's own name counts."""
    own = here.folder.resolve().name
    # A project may be called "OK project": the names below count for more than its own.
    is_silent = here.by_decision.keys() <= {"neutral"}
    if by_name and meaning(own) == "good" and is_silent:
        return _all_below(here.folder)
    if len(here.good) == 1:
        others = [f"{_images(len(n))} in {c.name}" for c, n in here.children.items() if n]
        others = [text for text in others if not text.endswith(f" in {here.good[0].name}")]
        if here.files:
            others.insert(0, f"{_images(len(here.files))} in {here.folder}")
        return _all_below(here.good[0], others)
    if by_name and _says_not_good(own) and not here.by_decision["good"]:
        raise DataError(
            f"The name of {here.folder} says that it does not hold only good parts (found: "
            f"{here}). {_ADVICE} If everything in it is good, rename it."
        )
    if here.files and (here.telling or here.good):
        names = ", ".join(child.name for child in here.telling or here.good)
        raise DataError(
            f"{here.folder} must hold only good parts, but it holds {names}, so it is not clear "
            f"which images are good (found: {here}). {_ADVICE}"
        )
    if here.files:
        return _all_in(here)
    unsure = here.by_decision["neutral"] + here.by_decision["unclear"]
    # Next to each other, ok_wrinkle and ok_bubble may well be kinds of defects.
    is_plain = len(here.good) < 2 or all(is_plainly_good(child.name) for child in here.good)
    if here.by_decision["good"] and not unsure and is_plain:
        return _the_good_of(here)
    if here.telling or len(here.plain) > 1:
        raise DataError(
            f"{here.folder} holds several folders, and by their names it is not clear which images "
            f"are of good parts (found: {here}). {_ADVICE}{_hint(here)}"
        )
    if here.plain:
        found = _good_images(_Contents(here.plain[0]), by_name=False)
        _refuse_marked(found.paths, list_images(here.folder))
        return found
    list_images(here.folder).or_error(
        "in the folder itself, in a folder whose name means good, or in a folder 'train' next to "
        "the test images"
    )
    raise AssertionError("unreachable")


def _hint(here: _Contents) -> str:
    """Where a folder for training lies one level further down."""
    nested = [here.folder if is_for_training(c.name) else c for c in here.plain]
    sets = [f for f in nested if any(is_for_training(c.name) for c in list_folder(f)[1])]
    return f" Did you mean {sets[0]}?" if sets else ""


def _the_good_of(here: _Contents) -> TrainingImages:
    """Of several folders, such as one a camera, the images whose way says good."""
    listing = list_images(here.folder)
    good = set(here.by_decision["good"])
    images = tuple(file for file in listing.images if file in good)
    rest = len(here.by_decision["defective"])
    return _trained_on(
        Listing(here.folder, images, listing.masks, listing.others),
        [f"{_images(rest)} in folders of defects"] if rest else [],
    )


def _all_below(folder: Path, others: Sequence[str] = ()) -> TrainingImages:
    listing = list_images(folder).or_error("in it or in folders in it")
    for file in listing.images:
        names = file.relative_to(folder).parts[:-1]
        against = [name for name in names if _says_not_good(name)]
        if against:
            raise DataError(
                f"{folder} is a folder of good parts by its name, but it holds {against[0]} "
                f"(found: {file}), which says the opposite. {_ADVICE}"
            )
    return _trained_on(listing, others)


def _all_in(here: _Contents) -> TrainingImages:
    """The images that lie in a folder itself."""
    listing = list_images(here.folder)
    images = tuple(file for file in listing.images if file.parent == here.folder)
    kept = Listing(here.folder, images, listing.masks, listing.others)
    below = Counter(f.relative_to(here.folder).parts[0] for f in set(listing.images) - set(images))
    return _trained_on(
        kept.or_error("that are not masks"),
        [f"{_images(n)} in {c}" for c, n in sorted(below.items())],
    )


def _trained_on(listing: Listing, others: Sequence[str]) -> TrainingImages:
    _refuse_marked(listing.images, listing)
    _refuse_named(listing)
    passed_over = [*others, *filter(None, [listing.passed_over])]
    return TrainingImages(listing.root, listing.images, tuple(passed_over))


def _refuse_marked(images: Sequence[Path], listing: Listing) -> None:
    """An image whose mask marks something shows a defect."""
    index = MaskIndex(images)
    of_these = [m for m in listing.masks if index.images_of(m, folder_of_masks(m, listing.root))]
    marked = [mask for mask in of_these if read_mask(mask).any()]
    if marked:
        raise DataError(
            f"{len(marked)} of {len(images)} images in {listing.root} have a mask that marks a "
            f"defect: {some_names(marked, listing.root)}. Training learns from good images only: "
            "pass a list of those whose masks are empty, or a folder of them."
        )


def _refuse_named(listing: Listing) -> None:
    """Files may say by their own names what they show: ng_000.png next to good_000.png."""
    said = [meaning(file.stem) for file in listing.images]
    named = [f for f, found in zip(listing.images, said, strict=True) if found == "defective"]
    if len(named) > 1 or (named and "good" in said):
        raise DataError(
            f"{len(named)} of {len(listing.images)} images in {listing.root} are named like "
            f"defects (found: {some_names(named, listing.root)}). Training learns from good images "
            "only: put the good ones into a folder of their own, or pass a list of files if the "
            "names mean something else."
        )


def _check_list(paths: Iterable[PathLike]) -> tuple[Path, ...]:
    if hasattr(paths, "columns"):  # a table's iterator gives its columns
        raise OptionError(
            "Training images are a folder or a list of paths. Received a table; pass its column of "
            "paths: table['path']."
        )
    try:
        files = tuple(check_path(path, "A training image") for path in paths)
    except TypeError as error:
        raise OptionError(
            f"Training images are a folder or a list of paths. Received: {paths!r}."
        ) from error
    for file in files:
        if not os.path.isfile(page_of(file)[0]):
            raise PathError(
                f"{file}: there is no such file, or you may not read it. Check the list of "
                "training images."
            )
    if not files:
        raise DataError("The list of training images is empty; name the image files in it.")
    return files


def _says_not_good(name: str) -> bool:
    return meaning(name) == "defective" or is_for_test(name) or is_for_masks(name)


# --------------------------------------------------------------------------------- in words


def _images(count: int) -> str:
    return f"{count} image" + ("" if count == 1 else "s")
