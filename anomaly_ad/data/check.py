"""Look at a data set before training: what is recognised, what is odd, and what to do about it.

Nothing is written. Every image is decoded once, some a second time for their pose; of each a
thumbnail and, of the good ones, a vector of pretrained features are kept, so memory stays small
however many there are.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import (
    BackboneError,
    DataError,
    ImageError,
    MissingExtraError,
    PathError,
)
from ..images import (
    Image,
    Listing,
    PathLike,
    Survey,
    check_path,
    decode_image,
    find_training_images,
    list_images,
    read_bytes,
    survey,
)
from ..images.formats import NAMES
from ..images.labelled import (
    GOOD,
    LabelledImages,
    find_labelled,
    has_test_folder,
)
from ..images.part import shrunk
from ..images.photograph import spread
from ..images.pose import learn_pose
from ..images.values import picture_of
from ..model import check_rate
from ..support import bar, ordered_map, printable
from .findings import (
    Finding,
    counts,
    each,
    most,
    number,
    of_copies,
    of_counts,
    of_files,
    of_kinds,
    of_masks,
    of_near_copies,
    of_outliers,
    size_counts,
)
from .pictures import LEAST_FOR_ODD, File, Pictures, examine, feature_engine

_POSES_OF = 64  # training images whose pose is looked at
_SHOWN = 5  # files of a finding that are printed


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
        How the labelled images were recognised.
    n_train : int
        Images that training would find.
    labelled : dict of str to int
        Labelled images of each kind.
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
    pose : str
        What training would make of how the parts lie, and why; empty where there are none.
    """

    source: str
    training: str | None
    layout: str
    n_train: int
    labelled: dict[str, int]
    n_masks: int
    sizes: dict[str, int]
    modes: dict[str, int]
    n_distinct: int
    false_alarm_rate: float
    supported_rate: float
    oddness: dict[str, float]
    omitted: dict[str, str]
    findings: tuple[Finding, ...]
    pose: str = ""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings without which training or evaluation would fail or mislead."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return {**asdict(self), "ready": not self.errors}

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        kinds = [f"{self.labelled[GOOD]} good"] if GOOD in self.labelled else []
        kinds += [f"{n} {kind}" for kind, n in sorted(self.labelled.items()) if kind != GOOD]
        masks = f"; {self.n_masks} masks" if self.n_masks else ""
        lines = {
            "folder": self.source,
            "train": f"{self.n_train} images of good parts from {self.training}"
            if self.training
            else "not clear, see below",
            "test": f"{', '.join(kinds)}{masks} ({self.layout})" if kinds else "none",
            "sizes": f"height x width: {most(self.sizes)}" if self.sizes else "",
            "pixels": most(self.modes),
            "pose": self.pose,
        }
        out = [f"{name:8}{text}" for name, text in lines.items() if text]
        for finding in self.findings:
            out.append(f"{finding.severity.upper():8}{finding.text} {finding.advice}")
            for some in finding.files[:_SHOWN]:
                line = " and ".join(self._short(file) for file in some)
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
        if self.errors:
            return f"{number(self.errors, 'problem')} must be fixed."
        warnings = self.findings
        if warnings:
            return f"Ready to train, with {number(warnings, 'warning')}."
        return "Ready to train."


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
            engine = feature_engine()
        else:
            omitted["outliers"] = (
                f"that takes {LEAST_FOR_ODD} clearly good images at least."
                if outliers
                else "it was not asked for."
            )
    except (MissingExtraError, BackboneError) as error:
        omitted["outliers"] = str(error)
    pictures = Pictures()
    training = [file.path for file in found.files if file.part == "train"]
    kind = survey(training or [file.path for file in found.files])
    look = functools.partial(
        examine, engine=engine, value_range=kind.value_range, deep=bool(kind.depth)
    )
    with (
        bar(len(found.files), "Checking", shown=progress) as step,
        closing(ordered_map(look, found.files)) as examined,
    ):
        for picture, features in examined:
            pictures.add(picture, features)
            step("")
    result = _result(root, found, pictures, float(false_alarm_rate), omitted)
    return replace(result, pose=_pose(training, kind))


def _pose(training: Sequence[Path], kind: Survey) -> str:
    """What align="auto" makes of the training images."""
    paths = spread(training, _POSES_OF)

    def look(path: Path) -> Image | None:
        try:
            pixels = decode_image(read_bytes(path), path)
            return shrunk(picture_of(pixels, kind.value_range))
        except (ImageError, PathError):
            return None

    smalls = [small for small in ordered_map(look, paths) if small is not None]
    if not smalls:
        return ""
    return learn_pose("auto", smalls)[1].removeprefix("Pose: ").removesuffix(".")


@dataclass
class Found:
    """The files of a data set, as training and evaluation recognise them."""

    training: Path | None
    labelled: LabelledImages | None
    files: list[File]
    findings: list[Finding]

    @property
    def can_be_odd(self) -> bool:
        """Whether there are enough good images to find odd ones among them."""
        return sum(file.part == "train" for file in self.files) >= LEAST_FOR_ODD


def _find(root: Path) -> Found:
    findings = []
    training, labelled = None, None
    good: tuple[Path, ...] = ()
    try:
        images = find_training_images(root)
        training, good = images.folder, images.paths
    except (DataError, PathError) as error:
        findings.append(Finding("error", "layout", "Training would refuse this:", str(error)))
    try:
        labelled = _find_labelled(root, findings)
    except (DataError, PathError) as error:
        findings.append(Finding("error", "labelled", "Evaluation would refuse this:", str(error)))
    items = () if labelled is None else labelled.items
    files = [File(path, "train") for path in good]
    files += [File(item.path, "test", item.kind, item.mask) for item in items]
    used = {file.path for file in files}
    listing = _list_all(root, findings)
    unused = [path for path in listing.images if path not in used]
    if training is None:
        files += [File(path, "unclear") for path in unused]
    elif unused:
        text = f"{number(unused, 'image')} used neither for training nor for evaluation."
        advice = f"Training uses only those in {training}. Move others there if they belong to it:"
        findings.append(Finding("warning", "unused", text, advice, each(unused)))
    if listing.others:
        text = f"{number(listing.others, 'file')} in unsupported formats."
        advice = f"Only {NAMES} are read. Convert them if you need them:"
        findings.append(Finding("warning", "passed_over", text, advice, each(listing.others)))
    return Found(training, labelled, files, findings)


def _list_all(root: Path, findings: list[Finding]) -> Listing:
    try:
        return list_images(root)
    except (DataError, PathError) as error:
        if not any(str(error) == finding.advice for finding in findings):
            text = "Some files may be masks or images:"
            findings.append(Finding("warning", "masks_or_images", text, str(error)))
        return Listing(root, ())


def _find_labelled(root: Path, findings: list[Finding]) -> LabelledImages | None:
    """The labelled images next to the training images, without masks where these do not fit."""
    if not has_test_folder(root):
        text = "There are no labelled images: no folder 'test'."
        advice = "Put some good and defective ones there, to see how well a model works."
        findings.append(Finding("warning", "no_test", text, advice))
        return None
    labelled = find_labelled(root, with_masks=False)
    if labelled.doubt:
        findings.append(Finding("error", "no_good", "No image is labelled good.", labelled.doubt))
    try:
        return find_labelled(root)
    except (DataError, ImageError) as error:
        findings.append(Finding("error", "masks", "Evaluation would refuse this:", str(error)))
    return labelled


# ------------------------------------------------------------------------------ the findings


def _result(
    root: Path, found: Found, pictures: Pictures, rate: float, omitted: dict[str, str]
) -> Check:
    groups = pictures.groups()
    train = [n for n, picture in enumerate(pictures.all) if picture.file.part == "train"]
    n_train = sum(file.part == "train" for file in found.files)
    n_distinct = len({int(groups[n]) for n in train})
    odd = pictures.oddness(groups)
    findings = [
        *found.findings,
        *of_files(pictures.broken),
        *of_masks(pictures.of("test")),
        *of_copies(pictures.all, groups),
        *of_near_copies(pictures.near_copies(groups), n_train),
        *of_counts(found, n_train, n_distinct, rate),
        *of_kinds(pictures),
        *of_outliers(found.training, odd),
    ]
    labelled = found.labelled
    return Check(
        source=str(root),
        training=None if found.training is None else str(found.training),
        layout="" if labelled is None else labelled.layout,
        n_train=n_train,
        labelled={} if labelled is None else dict(labelled.counts),
        n_masks=sum(file.mask is not None for file in found.files),
        sizes=size_counts(pictures.all),
        modes=counts(picture.mode for picture in pictures.all),
        n_distinct=n_distinct,
        false_alarm_rate=rate,
        supported_rate=1 / (n_distinct + 1),
        oddness=odd,
        omitted=omitted,
        findings=tuple(sorted(findings, key=lambda finding: finding.severity != "error")),
    )
