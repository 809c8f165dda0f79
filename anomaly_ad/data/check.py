"""Look at a data set before training: what is recognised, what is odd, and what to do about it.

Nothing is written. Every image is decoded once; of each a thumbnail and, of the good ones, a vector
of pretrained features are kept, so memory stays small however many there are.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import (
    AnomalyADError,
    BackboneError,
    DataError,
    ImageError,
    MissingExtraError,
    PathError,
)
from ..images import (
    Image,
    ImageSpec,
    Listing,
    PathLike,
    check_path,
    decode_image,
    find_training_images,
    list_images,
    read_bytes,
    stored_as,
)
from ..images.formats import NAMES
from ..images.labelled import (
    GOOD,
    LabelledImages,
    find_labelled,
    has_test_folder,
    read_fitting_mask,
)
from ..methods import registry
from ..model.calibration import check_rate, images_needed
from ..runtime.engine import Engine
from ..statistics.alike import oddness, same_pictures
from ..support.progress import bar, printable
from ..support.threads import ordered_map

# Of the features: a small input and late layers, since what is asked for is the odd image as a
# whole. docs/data.md holds what larger inputs find, and what they cost.
_SPEC = ImageSpec(96, 96, 3)
_REDUCED = ImageSpec(128, 128, 3)  # made on the way to it; thumbnails are made from it
_LAYERS = ("stage4", "stage5")
_ODD = 2.75  # robust standard deviations
_LEAST_FOR_ODD = 20  # images; among fewer nothing is usual
_THUMBNAIL = 16
_SHOWN = 5  # files of a finding that are printed
_ASPECT, _AREA = 1.1, 2.0  # largest to smallest; more is worth a look
Severity = Literal["mend", "look"]


@dataclass(frozen=True)
class Finding:
    """Something to mend, or worth a look.

    Parameters
    ----------
    severity : {"mend", "look"}
        "mend": training or evaluation would fail or mislead.
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


@dataclass(frozen=True)
class Check:
    """What was found in a data set.

    Parameters
    ----------
    source : str
        The folder that was named.
    training : str or None
        The folder that training would take; None if it would refuse.
    layout : str
        How the judged images were recognised.
    n_train : int
        Images that training would find.
    judged : dict of str to int
        Judged images of each kind.
    n_masks : int
        Masks of them.
    sizes, modes : dict of str to int
        Images of each size, "height x width" in pixels, and of each way of storing pixels.
    n_distinct : int
        Training images that can be read, each picture counted once.
    false_alarm_rate, supported_rate : float
        The rate that was asked for, and the least that `n_distinct` support.
    oddness : dict of str to float
        Of each training image, see `statistics.alike.oddness`; empty where it was left out.
    omitted : dict of str to str
        Checks that were left out, and why.
    findings : tuple of Finding
        The most severe first.
    """

    source: str
    training: str | None
    layout: str
    n_train: int
    judged: dict[str, int]
    n_masks: int
    sizes: dict[str, int]
    modes: dict[str, int]
    n_distinct: int
    false_alarm_rate: float
    supported_rate: float
    oddness: dict[str, float]
    omitted: dict[str, str]
    findings: tuple[Finding, ...]

    @property
    def to_mend(self) -> tuple[Finding, ...]:
        """Findings without which training or evaluation would fail or mislead."""
        return tuple(finding for finding in self.findings if finding.severity == "mend")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return {**asdict(self), "ready": not self.to_mend}

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        kinds = [f"{self.judged[GOOD]} good"] if GOOD in self.judged else []
        kinds += [f"{n} {kind}" for kind, n in sorted(self.judged.items()) if kind != GOOD]
        masks = f"; {self.n_masks} masks" if self.n_masks else ""
        lines = {
            "folder": self.source,
            "train": f"{self.n_train} images of good parts from {self.training}"
            if self.training
            else "not clear, see below",
            "test": f"{', '.join(kinds)}{masks} ({self.layout})" if kinds else "none",
            "sizes": f"height x width: {_most(self.sizes)}" if self.sizes else "",
            "pixels": _most(self.modes),
        }
        out = [f"{name:8}{text}" for name, text in lines.items() if text]
        for finding in self.findings:
            out.append(f"{finding.severity.upper():8}{finding.text} {finding.advice}")
            for some in finding.files[:_SHOWN]:
                line = " = ".join(self._short(file) for file in some)
                out.append(f"{'':10}{line}".replace("\n", "\\n"))  # a file's name may hold one
            if len(finding.files) > _SHOWN:
                out.append(f"{'':10}... and {len(finding.files) - _SHOWN} more; --json lists all")
        out += [f"{'':8}Not checked: {name}, since {why}" for name, why in self.omitted.items()]
        return printable("\n".join([*out, self._verdict()]))

    def _short(self, file: str) -> str:
        """A file as it is called within the folder."""
        path = Path(file)
        inside = path.is_relative_to(self.source)
        return str(path.relative_to(self.source)) if inside else file

    def _verdict(self) -> str:
        mend, look = len(self.to_mend), len(self.findings) - len(self.to_mend)
        if mend:
            return f"{_things(mend)} must be mended."
        return (
            f"Ready to train; {_things(look)} {'is' if look == 1 else 'are'} worth a look."
            if look
            else "Ready to train."
        )


def check(
    path: PathLike,
    *,
    false_alarm_rate: float = 0.01,
    outliers: bool = True,
    progress: bool = True,
) -> Check:
    """Look at a data set as training and evaluation would find it.

    Parameters
    ----------
    path : path
        The folder that training would be given.
    false_alarm_rate : float
        The share of good parts that may be rejected, in (0, 1).
    outliers : bool
        Whether to look for odd images among the good ones by pretrained features. Needs the extra
        "train"; without it that is left out, and said so.
    progress : bool
        Show a bar.

    Raises
    ------
    PathError
        There is no such folder.
    OptionError
        The rate is none.
    """
    check_rate(false_alarm_rate)
    root = check_path(path, "The folder of a data set")
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise PathError(f"{root} {what}; name the folder of the data set.")
    found = _find(root)
    omitted = {}
    engine = None
    try:
        if outliers and found.can_be_odd:
            engine = _features()
        else:
            omitted["outliers"] = (
                f"that takes {_LEAST_FOR_ODD} clearly good images at least."
                if outliers
                else "it was not asked for."
            )
    except (MissingExtraError, BackboneError) as error:
        omitted["outliers"] = str(error)
    pictures = _Pictures()
    examine = functools.partial(_examine, engine=engine)
    with (
        bar(len(found.files), "Checking", shown=progress) as step,
        closing(ordered_map(examine, found.files)) as examined,
    ):
        for picture, features in examined:
            pictures.add(picture, features)
            step("")
    return _result(root, found, pictures, float(false_alarm_rate), omitted)


# ---------------------------------------------------------------------------------- the files


@dataclass(frozen=True)
class _File:
    """An image file and what it is for: "train", "test", or "unclear"."""

    path: Path
    part: str
    kind: str = GOOD
    mask: Path | None = None


@dataclass
class _Found:
    """The files of a data set, as training and evaluation recognise them."""

    training: Path | None
    judged: LabelledImages | None
    files: list[_File]
    findings: list[Finding]

    @property
    def can_be_odd(self) -> bool:
        return sum(file.part == "train" for file in self.files) >= _LEAST_FOR_ODD


def _find(root: Path) -> _Found:
    findings = []
    training, judged = None, None
    good: tuple[Path, ...] = ()
    try:
        images = find_training_images(root)
        training, good = images.folder, images.paths
    except (DataError, PathError) as error:
        findings.append(Finding("mend", "layout", "Training would refuse this:", str(error)))
    try:
        judged = _find_judged(root, findings)
    except (DataError, PathError) as error:
        findings.append(Finding("mend", "judged", "Evaluation would refuse this:", str(error)))
    items = () if judged is None else judged.items
    files = [_File(path, "train") for path in good]
    files += [_File(item.path, "test", item.kind, item.mask) for item in items]
    used = {file.path for file in files}
    listing = _list_all(root, findings)
    beside = [path for path in listing.images if path not in used]
    if training is None:
        files += [_File(path, "unclear") for path in beside]
    elif beside:
        text = f"{_number(beside, 'image')} used neither for training nor for judging."
        advice = f"Training takes those in {training} alone. Move the others there if they count:"
        findings.append(Finding("look", "unused", text, advice, _each(beside)))
    if listing.others:
        text = f"{_number(listing.others, 'file')} of kinds that are passed over."
        advice = f"Only {NAMES} are read. Convert them if they count:"
        findings.append(Finding("look", "passed_over", text, advice, _each(listing.others)))
    return _Found(training, judged, files, findings)


def _list_all(root: Path, findings: list[Finding]) -> Listing:
    try:
        return list_images(root)
    except (DataError, PathError) as error:
        if not any(str(error) == finding.advice for finding in findings):
            text = "Some files may be masks or images:"
            findings.append(Finding("look", "masks_or_images", text, str(error)))
        return Listing(root, ())


def _find_judged(root: Path, findings: list[Finding]) -> LabelledImages | None:
    """The judged images beside the training images, without masks where these do not fit."""
    if not has_test_folder(root):
        text = "There are no judged images: no folder 'test'."
        advice = "Put some good and defective ones there, to see how well a model works."
        findings.append(Finding("look", "no_test", text, advice))
        return None
    judged = find_labelled(root, with_masks=False)
    if judged.doubt:
        findings.append(Finding("mend", "no_good", "No image is labelled good.", judged.doubt))
    try:
        return find_labelled(root)
    except (DataError, ImageError) as error:
        findings.append(Finding("mend", "masks", "Evaluation would refuse this:", str(error)))
    return judged


# ------------------------------------------------------------------------------- one pass


@dataclass
class _Picture:
    """What is kept of an image."""

    file: _File
    digest: bytes = b""
    mode: str = ""
    orientation: int = 1
    size: tuple[int, int] | None = None  # (height, width)
    thumbnail: NDArray[np.uint16] | None = None
    error: str | None = None
    mask_error: str | None = None
    marks_nothing: bool = False


class _Pictures:
    """All images, and features of some."""

    def __init__(self) -> None:
        self.all: list[_Picture] = []
        self.broken: list[_Picture] = []
        self._features: list[NDArray[np.float32]] = []
        self._featured: list[int] = []

    def add(self, picture: _Picture, features: NDArray[np.float32] | None) -> None:
        if picture.error is not None:
            self.broken.append(picture)
            return
        if features is not None:
            self._features.append(features)
            self._featured.append(len(self.all))
        self.all.append(picture)

    def of(self, part: str) -> list[_Picture]:
        return [picture for picture in self.all if picture.file.part == part]

    def groups(self) -> NDArray[np.intp]:
        """For each picture the first one that is the same."""
        first: dict[bytes, int] = {}
        same = [first.setdefault(picture.digest, n) for n, picture in enumerate(self.all)]
        distinct = sorted(first.values())
        if not distinct:
            return np.empty(0, np.intp)
        kept = (self.all[index].thumbnail for index in distinct)
        thumbnails = np.stack([thumbnail for thumbnail in kept if thumbnail is not None])
        labels = np.array(distinct)[same_pictures(thumbnails)]
        by_index = dict(zip(distinct, labels, strict=True))
        return np.array([by_index[index] for index in same], np.intp)

    def oddness(self, groups: NDArray[np.intp]) -> dict[str, float]:
        """Of the images with features; a copy is as odd as the first of its group."""
        places: dict[int, int] = {}
        for place, index in enumerate(self._featured):
            places.setdefault(int(groups[index]), place)
        if len(places) < _LEAST_FOR_ODD:
            return {}
        values = oddness(np.stack([self._features[place] for place in places.values()]))
        by_group = dict(zip(places, values.tolist(), strict=True))
        return {str(self.all[n].file.path): by_group[int(groups[n])] for n in self._featured}


@functools.cache
def _features() -> Engine:
    """The default backbone on small images, compiled; built once in a process."""
    networks = registry.keras_module("anomaly_ad.backbones.networks", "Looking for outliers")
    convert = registry.keras_module("anomaly_ad.runtime.convert", "Looking for outliers")
    graph = networks.strongest_features(_SPEC, registry.DEFAULT_BACKBONE, _LAYERS)
    # bf16 takes two thirds of the time where the processor has it, and which images are odd hangs
    # on no fourth digit.
    engine = Engine(convert.to_openvino(graph), "bf16")
    engine.run_beside(np.zeros((1, *_SPEC.shape), np.uint8))  # compiles
    return engine


def _examine(file: _File, engine: Engine | None) -> tuple[_Picture, NDArray[np.float32] | None]:
    """What is kept of an image, and the features of a good one; called in threads."""
    picture = _Picture(file)
    try:
        data = read_bytes(file.path)
        image = decode_image(data, file.path)
    except AnomalyADError as error:
        picture.error = str(error)
        return picture, None
    picture.digest = hashlib.sha256(data).digest()
    if (header := stored_as(data)) is not None:
        picture.mode, picture.orientation = header.mode, header.orientation
    picture.size = (image.shape[0], image.shape[1])
    if file.mask is not None:
        try:
            picture.marks_nothing = not read_fitting_mask(file.mask, picture.size).any()
        except AnomalyADError as error:
            picture.mask_error = str(error)
    reduced = _REDUCED.prepare(_halved(image))
    picture.thumbnail = _thumbnail(reduced)
    if engine is None or file.part != "train":
        return picture, None
    return picture, engine.run_beside(_SPEC.prepare(reduced)[None])["features"][0]


def _halved(image: Image) -> Image:
    """The image halved as long as it is twice as large as `_REDUCED`; a last odd row is left out.

    OpenCV averages 2 x 2 pixels several times as fast as any other number of them.
    """
    height, width = (side // 2 for side in image.shape[:2])
    while height >= _REDUCED.height and width >= _REDUCED.width:
        even = image[: 2 * height, : 2 * width]
        halved: Any = cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)
        image = halved
        height, width = height // 2, width // 2
    return image


def _thumbnail(reduced: Image) -> NDArray[np.uint16]:
    """Mean gray values of 16x16 fields, in units of 1 / 256: finer than the noise of a JPEG."""
    gray = cv2.cvtColor(reduced, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fields = cv2.resize(gray, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.round(256 * fields).astype(np.uint16).ravel()


# ------------------------------------------------------------------------------ the findings


def _result(
    root: Path, found: _Found, pictures: _Pictures, rate: float, omitted: dict[str, str]
) -> Check:
    groups = pictures.groups()
    train = [n for n, picture in enumerate(pictures.all) if picture.file.part == "train"]
    n_train = sum(file.part == "train" for file in found.files)
    n_distinct = len({int(groups[n]) for n in train})
    odd = pictures.oddness(groups)
    findings = [
        *found.findings,
        *_of_files(pictures.broken),
        *_of_masks(pictures.of("test")),
        *_of_copies(pictures.all, groups),
        *_of_counts(found, n_train, n_distinct, rate),
        *_of_kinds(pictures),
        *_of_outliers(found.training, odd),
    ]
    judged = found.judged
    return Check(
        source=str(root),
        training=None if found.training is None else str(found.training),
        layout="" if judged is None else judged.layout,
        n_train=n_train,
        judged={} if judged is None else dict(judged.counts),
        n_masks=sum(file.mask is not None for file in found.files),
        sizes=_sizes(pictures.all),
        modes=_counts(picture.mode for picture in pictures.all),
        n_distinct=n_distinct,
        false_alarm_rate=rate,
        supported_rate=1 / (n_distinct + 1),
        oddness=odd,
        omitted=omitted,
        findings=tuple(sorted(findings, key=lambda finding: finding.severity != "mend")),
    )


def _of_files(broken: Sequence[_Picture]) -> Iterator[Finding]:
    if broken:
        text = f"{_number(broken, 'image')} that cannot be read."
        # The message of each names its file and says what to do.
        reasons = tuple((picture.error or "",) for picture in broken)
        yield Finding(
            "mend", "unreadable", text, "Mend or replace them, or take them out:", reasons
        )


def _of_masks(judged: Sequence[_Picture]) -> Iterator[Finding]:
    wrong = tuple((picture.mask_error,) for picture in judged if picture.mask_error)
    if wrong:
        text = f"{_number(wrong, 'mask')} that cannot be used."
        advice = "Evaluation would refuse them. Make them anew, or take them out:"
        yield Finding("mend", "mask", text, advice, wrong)
    empty = [picture.file.mask for picture in judged if picture.marks_nothing]
    if empty:
        text = f"{_number(empty, 'mask')} of defective images without a marked pixel."
        advice = "Anything but black (0) marks the defect. Draw them again if there is one:"
        yield Finding("look", "empty_mask", text, advice, _each(path for path in empty if path))
    defective = [picture.file for picture in judged if picture.file.kind != GOOD]
    without = [file.path for file in defective if file.mask is None]
    if without and len(without) < len(defective):
        text = f"{len(without)} of {len(defective)} defective images without a mask."
        advice = "Metrics of pixels leave them out. Add ground_truth/<defect>/<name>_mask.png for:"
        yield Finding("look", "no_mask", text, advice, _each(without))


def _of_copies(pictures: Sequence[_Picture], groups: NDArray[np.intp]) -> Iterator[Finding]:
    members: dict[int, list[_Picture]] = defaultdict(list)
    for picture, group in zip(pictures, groups.tolist(), strict=True):
        members[group].append(picture)
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for some in members.values():
        if len(some) > 1:
            found[_kind_of_copies(some)].append(tuple(str(p.file.path) for p in some))
    for name, (severity, text, advice) in _COPIES.items():
        if name in found:
            words = text.format(pictures=_number(found[name], "picture"))
            yield Finding(severity, name, words, advice, tuple(found[name]))


_COPIES: dict[str, tuple[Severity, str, str]] = {
    "train_and_test": (
        "mend",
        "{pictures} among both the training images and the judged ones.",
        "Evaluating on what was learnt flatters the model. Keep each in one of them only:",
    ),
    "judged_both": (
        "mend",
        "{pictures} judged both good and defective.",
        "Decide which, and delete the other:",
    ),
    "re_encoded": (
        "mend",
        "{pictures} more than once among the training images, encoded otherwise.",
        "They would count more than once, and the limit of good be too low. Keep one of each:",
    ),
    "copies": (
        "look",
        "{pictures} more than once among the training images, as copies of a file.",
        "Training counts each once. If they should be different photographs, find these:",
    ),
    "judged_twice": (
        "look",
        "{pictures} more than once among the judged images.",
        "They count more than once in every figure. Keep one of each:",
    ),
}


def _kind_of_copies(some: Sequence[_Picture]) -> str:
    parts = {picture.file.part for picture in some}
    if "test" in parts and len(parts) > 1:
        return "train_and_test"
    if parts == {"test"}:
        judged = {picture.file.kind != GOOD for picture in some}
        return "judged_both" if len(judged) > 1 else "judged_twice"
    return "re_encoded" if len({picture.digest for picture in some}) > 1 else "copies"


def _of_counts(found: _Found, n_train: int, n_distinct: int, rate: float) -> Iterator[Finding]:
    if found.training is not None:
        least = min(preset.min_images for preset in registry.PRESETS.values())
        needed = images_needed(rate)
        if n_train > 1 and n_distinct == 1:
            text = f"All {n_train} training images show the same."
            advice = "There is nothing to learn of what varies on good parts. Are they copies?"
            yield Finding("mend", "all_alike", text, advice)
        elif n_distinct < least:
            text = f"{n_distinct} different images of good parts are too few to train."
            advice = f"At least {least} are needed; take more photographs, 50 to 200 are usual."
            yield Finding("mend", "too_few", text, advice)
        elif n_distinct < needed:
            text = (
                f"{n_distinct} good images support a false alarm rate of {1 / (n_distinct + 1):.2g}"
                f", not {rate:g}."
            )
            advice = (
                f"That takes {needed} (for the autoencoders, which hold a fifth back, about "
                f"{5 * needed}). Take more photographs, or accept the higher rate."
            )
            yield Finding("look", "rate", text, advice)
    if found.judged is not None:
        counts = found.judged.counts
        lacking = [] if counts[GOOD] else ["good"]
        lacking += [] if counts.total() > counts[GOOD] else ["defective"]
        if lacking:
            text = f"There are no {lacking[0]} images among the judged ones."
            advice = "Evaluation counts false alarms on good ones and misses on defective ones."
            yield Finding("look", "one_sided", text, advice)


def _of_kinds(pictures: _Pictures) -> Iterator[Finding]:
    """Sizes, ways of storing pixels, and orientations."""
    train = pictures.of("train")
    sizes = [picture.size for picture in train if picture.size]
    aspects = [height / width for height, width in sizes]
    areas = [height * width for height, width in sizes]
    if sizes and max(aspects) > _ASPECT * min(aspects):
        text = f"Training images are of {len(set(sizes))} sizes, whose shapes differ."
        advice = "They would be stretched to one; train with --fit pad, or crop them alike."
        yield Finding("look", "shapes", text, advice)
    elif sizes and max(areas) > _AREA * min(areas):
        text = f"Training images are of {len(set(sizes))} sizes: {_most(_sizes(train))}."
        advice = "Small ones are less sharp, which looks like a defect. Photograph all alike."
        yield Finding("look", "sizes", text, advice)
    modes = _counts(picture.mode for picture in train)
    if len(modes) > 1:
        text = f"Training images store their pixels in {len(modes)} ways: {_most(modes)}."
        advice = "Are they from one camera, with one setting? Rare ones are among these:"
        usual = max(modes, key=lambda mode: modes[mode])
        rare = _each(picture.file.path for picture in train if picture.mode != usual)
        yield Finding("look", "modes", text, advice, rare)
    turned = [picture.file.path for picture in train if picture.orientation != 1]
    if 0 < len(turned) < len(train):
        text = f"{len(turned)} of {len(train)} training images are turned by the camera's note."
        advice = "The note is applied. Look whether the parts then lie alike:"
        yield Finding("look", "turned", text, advice, _each(turned))
    yield from _of_difference(train, pictures.of("test"))


def _of_difference(train: Sequence[_Picture], judged: Sequence[_Picture]) -> Iterator[Finding]:
    """Judged images that are stored otherwise, or have another shape, than any for training."""
    if not train:
        return
    modes = {picture.mode for picture in train}
    aspects = [picture.size[0] / picture.size[1] for picture in train if picture.size]
    low, high = min(aspects) / _ASPECT, max(aspects) * _ASPECT
    odd = [
        picture.file.path
        for picture in judged
        if picture.mode not in modes
        or (picture.size and not low <= picture.size[0] / picture.size[1] <= high)
    ]
    if odd:
        text = f"{_number(odd, 'judged image')} of a shape or mode that no training image has."
        advice = "A model may see that instead of the defect. Photograph all alike:"
        yield Finding("look", "other_kind", text, advice, _each(odd))


def _of_outliers(training: Path | None, odd: dict[str, float]) -> Iterator[Finding]:
    above = sorted((path for path in odd if odd[path] > _ODD), key=lambda path: -odd[path])
    if above:
        text = f"{len(above)} of {len(odd)} training images are unlike the others."
        advice = "Look at them, the oddest first; take out what is not good:"
        yield Finding("look", "outliers", text, advice, _each(above))
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
            yield Finding("look", "odd_folder", text, advice, ((str(folder),),))


# --------------------------------------------------------------------------------- in words


def _each(paths: Iterable[object]) -> tuple[tuple[str, ...], ...]:
    return tuple((str(path),) for path in paths)


def _counts(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(Counter(values).most_common())


def _sizes(pictures: Iterable[_Picture]) -> dict[str, int]:
    return _counts(f"{p.size[0]}x{p.size[1]}" for p in pictures if p.size)


def _most(counts: dict[str, int]) -> str:
    """The most frequent values: "512x512 (209), 500x500 (3) and 2 others (4)"."""
    words = [f"{value} ({count})" for value, count in [*counts.items()][:3]]
    rest = sum([*counts.values()][3:])
    return ", ".join(words) + (f" and {len(counts) - 3} others ({rest})" if rest else "")


def _number(things: Sequence[object], what: str) -> str:
    return f"{len(things)} {what}" + ("" if len(things) == 1 else "s")


def _things(count: int) -> str:
    return "1 thing" if count == 1 else f"{count} things"
