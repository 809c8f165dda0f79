"""What is found in a data set, and what to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ..images import of_pages
from ..images.labelled import (
    GOOD,
)
from ..methods import registry
from ..model import images_needed
from .pictures import Picture, Pictures

if TYPE_CHECKING:
    from .check import Found

ASPECT, AREA = 1.1, 2.0  # largest to smallest; more is worth a look

_ODD = 2.75  # robust standard deviations
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """An error to fix, or a warning worth a look.

    Parameters
    ----------
    severity : {"error", "warning"}
        "error": training or evaluation would fail or mislead.
    name : str
        What it is, in a word for programs.
    text, advice : str
        What was found, and what to do.
    files : tuple of tuple of str
        All the files, those that belong together in one tuple. Where each has a reason of its own,
        the message that names it.
    """

    severity: Severity
    name: str
    text: str
    advice: str
    files: tuple[tuple[str, ...], ...] = ()


def of_files(broken: Sequence[Picture]) -> Iterator[Finding]:
    """Files that cannot be used."""
    if broken:
        text = f"{number(broken, 'image')} that cannot be read."
        # The message of each names its file and says what to do.
        reasons = tuple((picture.error or "",) for picture in broken)
        yield Finding(
            "error", "unreadable", text, "Repair or replace them, or take them out:", reasons
        )


def of_masks(labelled: Sequence[Picture]) -> Iterator[Finding]:
    """Masks that do not fit, or mark nothing."""
    wrong = tuple((picture.mask_error,) for picture in labelled if picture.mask_error)
    if wrong:
        text = f"{number(wrong, 'mask')} that cannot be used."
        advice = "Evaluation would refuse them. Make them again, or take them out:"
        yield Finding("error", "mask", text, advice, wrong)
    empty = [picture.file.mask for picture in labelled if picture.marks_nothing]
    if empty:
        text = f"{number(empty, 'mask')} of defective images without a marked pixel."
        advice = "Anything but black (0) marks the defect. Draw them again if there is one:"
        yield Finding("warning", "empty_mask", text, advice, each(path for path in empty if path))
    defective = [picture.file for picture in labelled if picture.file.kind != GOOD]
    without = [file.path for file in defective if file.mask is None]
    if without and len(without) < len(defective):
        text = f"{len(without)} of {len(defective)} defective images without a mask."
        advice = "Metrics of pixels leave them out. Add ground_truth/<defect>/<name>_mask.png for:"
        yield Finding("warning", "no_mask", text, advice, each(without))


def of_copies(pictures: Sequence[Picture], groups: NDArray[np.intp]) -> Iterator[Finding]:
    """Images that are copies of others."""
    members: dict[int, list[Picture]] = defaultdict(list)
    for picture, group in zip(pictures, groups.tolist(), strict=True):
        members[group].append(picture)
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for some in members.values():
        if len(some) > 1:
            found[_kind_of_copies(some)].append(tuple(str(p.file.path) for p in some))
    for name, (severity, text, advice) in _COPIES.items():
        if name in found:
            words = text.format(pictures=number(found[name], "picture"))
            yield Finding(severity, name, words, advice, tuple(found[name]))


_COPIES: dict[str, tuple[Severity, str, str]] = {
    "train_and_test": (
        "error",
        "{pictures} among both the training images and the labelled ones.",
        "Evaluating on training images flatters the model. Keep each in only one of the two:",
    ),
    "labelled_both": (
        "error",
        "{pictures} labelled both good and defective.",
        "Decide which, and delete the other:",
    ),
    "re_encoded": (
        "error",
        "{pictures} more than once among the training images, encoded differently.",
        "They would count more than once and make the decision limit too low. Keep one of each:",
    ),
    "copies": (
        "warning",
        "{pictures} more than once among the training images, as copies of a file.",
        "Training counts each once. If they should be different photographs, find these:",
    ),
    "labelled_twice": (
        "warning",
        "{pictures} more than once among the labelled images.",
        "They count more than once in every figure. Keep one of each:",
    ),
}


def _kind_of_copies(some: Sequence[Picture]) -> str:
    parts = {picture.file.part for picture in some}
    if "test" in parts and len(parts) > 1:
        return "train_and_test"
    if parts == {"test"}:
        labelled = {picture.file.kind != GOOD for picture in some}
        return "labelled_both" if len(labelled) > 1 else "labelled_twice"
    return "re_encoded" if len({picture.digest for picture in some}) > 1 else "copies"


def of_near_copies(pairs: Sequence[tuple[Picture, Picture]], n_train: int) -> Iterator[Finding]:
    """Images that may be photographs of one part."""
    if pairs:
        files = tuple((str(one.file.path), str(other.file.path)) for one, other in pairs)
        count = len({file for pair in files for file in pair})
        text = f"{count} of {n_train} training images are nearly the same as another."
        advice = (
            "If parts were photographed several times, scores of unseen images are too low unless "
            "all photographs of a part are left out together: train with groups=, or --groups and "
            "an expression for the part in the name of a file. The nearest pairs first:"
        )
        yield Finding("warning", "near_copies", text, advice, files)


def of_counts(found: Found, n_train: int, n_distinct: int, rate: float) -> Iterator[Finding]:
    """Too few images."""
    if found.training is not None:
        least = min(preset.min_images for preset in registry.PRESETS.values())
        needed = images_needed(rate)
        if n_train > 1 and n_distinct == 1:
            text = f"All {n_train} training images show the same picture."
            advice = "A model cannot learn from them how good parts vary. Are they copies?"
            yield Finding("error", "all_alike", text, advice)
        elif n_distinct < least:
            text = f"{n_distinct} different images of good parts are too few to train."
            advice = f"At least {least} are needed; take more photographs, 50 to 200 are usual."
            yield Finding("error", "too_few", text, advice)
        elif n_distinct < needed:
            text = (
                f"{n_distinct} good images support a false alarm rate of {1 / (n_distinct + 1):.2g}"
                f", not {rate:g}."
            )
            advice = (
                f"That takes {needed} (for the autoencoders, which hold a fifth back, about "
                f"{5 * needed}). Take more photographs, or accept the higher rate."
            )
            yield Finding("warning", "rate", text, advice)
    if found.labelled is not None:
        counts = found.labelled.counts
        lacking = [] if counts[GOOD] else ["good"]
        lacking += [] if counts.total() > counts[GOOD] else ["defective"]
        if lacking:
            text = f"There are no {lacking[0]} images among the labelled ones."
            advice = "Evaluation counts false alarms on good ones and misses on defective ones."
            yield Finding("warning", "one_sided", text, advice)


def of_kinds(pictures: Pictures) -> Iterator[Finding]:
    """Sizes, ways of storing pixels, and orientations."""
    train = pictures.of("train")
    sizes = [picture.size for picture in train if picture.size]
    aspects = [height / width for height, width in sizes]
    areas = [height * width for height, width in sizes]
    if sizes and max(aspects) > ASPECT * min(aspects):
        text = f"Training images are of {len(set(sizes))} sizes, whose shapes differ."
        advice = "They would be stretched to one; train with --fit pad, or crop them alike."
        yield Finding("warning", "shapes", text, advice)
    elif sizes and max(areas) > AREA * min(areas):
        text = f"Training images are of {len(set(sizes))} sizes: {most(size_counts(train))}."
        advice = "Small ones are less sharp, which looks like a defect. Photograph all alike."
        yield Finding("warning", "sizes", text, advice)
    modes = counts(picture.mode for picture in train)
    if len(modes) > 1:
        text = f"Training images store their pixels in {len(modes)} ways: {most(modes)}."
        advice = "Are they from one camera, with one setting? Rare ones are among these:"
        usual = max(modes, key=lambda mode: modes[mode])
        rare = each(picture.file.path for picture in train if picture.mode != usual)
        yield Finding("warning", "modes", text, advice, rare)
    if stacks := [picture.file.path for picture in pictures.all if picture.n_pages > 1]:
        yield Finding("warning", "pages", of_pages(len(stacks)), "They are:", each(stacks))
    turned = [picture.file.path for picture in train if picture.orientation != 1]
    if 0 < len(turned) < len(train):
        text = f"{len(turned)} of {len(train)} training images carry a rotation from the camera."
        advice = "It is applied. Check that the parts then lie the same way:"
        yield Finding("warning", "turned", text, advice, each(turned))
    yield from _of_difference(train, pictures.of("test"))


def _of_difference(train: Sequence[Picture], labelled: Sequence[Picture]) -> Iterator[Finding]:
    """Labelled images that are stored otherwise, or have another shape, than any for training."""
    if not train:
        return
    modes = {picture.mode for picture in train}
    aspects = [picture.size[0] / picture.size[1] for picture in train if picture.size]
    low, high = min(aspects) / ASPECT, max(aspects) * ASPECT
    odd = [
        picture.file.path
        for picture in labelled
        if picture.mode not in modes
        or (picture.size and not low <= picture.size[0] / picture.size[1] <= high)
    ]
    if odd:
        text = f"{number(odd, 'labelled image')} of a shape or mode that no training image has."
        advice = "A model may react to that instead of the defect. Photograph all the same way:"
        yield Finding("warning", "other_kind", text, advice, each(odd))


def of_outliers(training: Path | None, odd: dict[str, float]) -> Iterator[Finding]:
    """Good images that look odd."""
    above = sorted((path for path in odd if odd[path] > _ODD), key=lambda path: -odd[path])
    if above:
        text = f"{len(above)} of {len(odd)} training images are unlike the others."
        advice = "Look at them, the oddest first; take out what is not good:"
        yield Finding("warning", "outliers", text, advice, each(above))
    folders: dict[Path, list[bool]] = defaultdict(list)
    for path, value in odd.items():
        folders[Path(path).parent].append(value > _ODD)
    for folder, flags in folders.items():
        if folder != training and sum(flags) > len(flags) / 2:
            text = (
                f"The folder {folder.name} looks like defects: {sum(flags)} of its {len(flags)} "
                "images are unlike the others."
            )
            advice = "If they are not good, move it out of the training folder."
            yield Finding("warning", "odd_folder", text, advice, ((str(folder),),))


# --------------------------------------------------------------------------------- in words


def each(paths: Iterable[object]) -> tuple[tuple[str, ...], ...]:
    """One file a line, for a finding."""
    return tuple((str(path),) for path in paths)


def counts(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def size_counts(pictures: Iterable[Picture]) -> dict[str, int]:
    """How often each size comes."""
    return counts(f"{p.size[0]}x{p.size[1]}" for p in pictures if p.size)


def most(counts: dict[str, int]) -> str:
    """The most frequent values: "512x512 (209), 500x500 (3) and 2 others (4)"."""
    words = [f"{value} ({count})" for value, count in [*counts.items()][:3]]
    rest = sum([*counts.values()][3:])
    return ", ".join(words) + (f" and {len(counts) - 3} others ({rest})" if rest else "")


def number(counted: Sequence[object], what: str) -> str:
    """How many, in words."""
    return f"{len(counted)} {what}" + ("" if len(counted) == 1 else "s")
