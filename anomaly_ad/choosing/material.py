"""What methods are compared on: images to learn from, and others to be tested on."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.rendered import KINDS, LEAST_SIZE
from ..errors import DataError
from ..evaluation.rendered import RenderedSource
from ..images import PathLike, TrainingImages, find_training_images, split_groups, survey
from ..images.groups import Groups, grouped, numbered
from ..images.labelled import GOOD, LabelledImages, find_labelled, has_test_folder
from ..images.sources import Source, file_sources

HELD_OUT = 0.2  # of the good images, where no others are labelled
_LEAST_HELD_OUT = 5
_PER_KIND = 16  # rendered defects
_SIZES = 0.02, 0.15  # shares of the shorter side of a photograph
_CONTRASTS = 15.0, 90.0  # gray levels


@dataclass(frozen=True, eq=False)
class Material:
    """Images to learn from, and images to test on.

    Parameters
    ----------
    training : TrainingImages
        Images of good parts.
    whole : TrainingImages
        The same with those that were held out.
    tests : tuple of (Source, str)
        Images that are not among `training`, each with its kind: "good" or that of its defect.
    is_rendered : bool
        Whether the defects are rendered ones, as there are no others.
    notes : tuple of str
        What was done, for people.
    """

    training: TrainingImages
    whole: TrainingImages
    tests: tuple[tuple[Source, str], ...]
    is_rendered: bool
    notes: tuple[str, ...]

    def part(self, chosen: Sequence[int]) -> Material:
        """The same with some of the images to test on."""
        return replace(self, tests=tuple(self.tests[index] for index in chosen))


def find_material(
    path: PathLike | Iterable[PathLike],
    labelled: PathLike | None = None,
    *,
    groups: Groups | None = None,
    seed: int = 0,
    whole: TrainingImages | None = None,
) -> Material:
    """Find images to learn from, and labelled ones or good ones to render defects on.

    Parameters
    ----------
    path : path or list of paths
        As for `AD.load_data`. Labelled images are looked for in the same folder.
    labelled : path, optional
        A folder or a CSV of labelled images, as for `AD.evaluate`, instead.
    groups : str, sequence or mapping, optional
        As for `AD.train`: images of one part are held out together.
    seed : int
        Of what is held out and rendered.
    whole : TrainingImages, optional
        The good images in `path`, where they are known already.

    Raises
    ------
    DataError, PathError
        There is nothing to learn from, or too little.
    """
    whole = whole or find_training_images(path)
    whole = whole if groups is None else grouped(whole, groups)
    known = {os.path.realpath(file) for file in whole.paths}
    found = _labelled(path, labelled, known)
    items = () if found is None else found.items
    good = [i for i in items if not i.is_defective and os.path.realpath(i.path) not in known]
    defective = [i for i in items if i.is_defective and os.path.realpath(i.path) not in known]
    training, notes = whole, []
    if found is not None and found.doubt:
        notes.append(f"Warning: {found.doubt}")
    files = [item.path for item in good]
    if not files:
        parts = numbered(whole.groups) if whole.groups else np.arange(len(whole.paths))
        n_parts = int(parts.max()) + 1
        count = max(_LEAST_HELD_OUT, round(HELD_OUT * n_parts))
        if 2 * count > n_parts:
            raise DataError(
                f"The images are of {n_parts} good parts, which are too few: {count} are to be "
                "tested on, and at least as many learnt from. Take more photographs."
            )
        kept, held = split_groups(parts, [count], seed)
        files = [whole.paths[index] for index in held]
        training = _some(whole, kept.tolist())
        notes.append(
            f"There are no other good images, so {len(files)} of the {len(whole.paths)} are tested "
            "on instead of learnt from."
        )
    copies = _copies([*files, *(item.path for item in defective)], training.paths)
    if copies:
        files = [file for file in files if file not in copies]
        defective = [item for item in defective if item.path not in copies]
        notes.append(
            f"Copies of images that are learnt from, among those to test on: {len(copies)}. They "
            "do not count."
        )
    if not files:
        raise DataError(
            "All good images to test on are copies of images that are learnt from. Label others, "
            "or name a folder without labels: then some are held out."
        )
    tests = [(source, GOOD) for source in file_sources(files)]
    if defective:
        sources = file_sources([item.path for item in defective])
        tests += [(source, item.kind) for source, item in zip(sources, defective, strict=True)]
    else:
        tests += [(source, source.kind) for source in rendered(files, seed)]
        notes.append(
            f"There are no labelled defects, so {len(tests) - len(files)} RENDERED ones are to be "
            "found, from hardly visible to plain. Real ones may be easier or harder to find."
        )
    return Material(training, whole, tuple(tests), not defective, tuple(notes))


def _copies(files: Sequence[Path], learnt: Sequence[Path]) -> set[Path]:
    """Those files whose content is that of one that is learnt from."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in learnt:
        if file.is_file():
            by_size[file.stat().st_size].append(file)
    out, known = set(), dict[Path, bytes]()
    for file in files:
        others = by_size.get(file.stat().st_size, []) if file.is_file() else []
        for other in [file, *others] if others else ():
            if other not in known:
                known[other] = hashlib.sha256(other.read_bytes()).digest()
        if any(known[other] == known[file] for other in others):
            out.add(file)
    return out


def _some(images: TrainingImages, chosen: Sequence[int]) -> TrainingImages:
    groups = tuple(images.groups[index] for index in chosen) if images.groups else ()
    return replace(images, paths=tuple(images.paths[index] for index in chosen), groups=groups)


def _labelled(
    path: PathLike | Iterable[PathLike], labelled: PathLike | None, known: Set[str]
) -> LabelledImages | None:
    """Labelled images; None where nothing says that there are some."""
    if labelled is not None:
        found = find_labelled(labelled, with_masks=False)
        for item in found.items:
            if item.is_defective and os.path.realpath(item.path) in known:
                raise DataError(
                    f"{item.path} is labelled defective, but is among the images of good parts "
                    "that are learnt from. Keep them apart."
                )
        return found
    if not isinstance(path, (str, os.PathLike)):
        return None
    has_test = has_test_folder(Path(path))
    try:
        found = find_labelled(path, with_masks=False)
    except DataError:
        if has_test:
            raise
        return None  # a folder to learn from, and nothing else
    # Where no name says good, none of these images is known to be labelled.
    return found if has_test or found.counts[GOOD] else None


def rendered(files: Sequence[Path], seed: int) -> list[RenderedSource]:
    """These images with defects of all kinds, sizes and contrasts, the same for the same seed."""
    random = np.random.default_rng(seed)
    sides = [min(size) for size in survey(files).sizes]
    shorter = float(np.median(sides)) if sides else 0.0
    places = np.resize(random.permutation(len(files)), _PER_KIND * len(KINDS)).tolist()
    out = []
    for number, place in enumerate(places):
        file, kind = files[place], KINDS[number % len(KINDS)]
        step = number // len(KINDS) / (_PER_KIND - 1)
        size = max(_between(_SIZES, step) * shorter, LEAST_SIZE)
        contrast = _between(_CONTRASTS, random.random())
        own = tuple(random.integers(2**32, size=4).tolist())
        name = Path(f"{number:03d}_{file.name}")
        out.append(RenderedSource(str(file), file, None, name, kind, size, contrast, own))
    return out


def _between(ends: tuple[float, float], step: float) -> float:
    low, high = ends
    return float(low * (high / low) ** step)
