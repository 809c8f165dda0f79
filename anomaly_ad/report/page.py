"""Inspect a set of images and write one HTML file that tells what came out."""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..errors import DataError, OptionError
from ..evaluation import Evaluation, ProbabilityOfDetection, evaluate
from ..evaluation.figures import known_images
from ..images import PathLike, check_path
from ..images.labelled import LabelledImages, find_labelled
from ..images.sources import file_sources
from ..inspection import Inspector, summary
from ..inspection.records import JSONL, read_records
from ..model import LIMIT_SCORE, StoredModel
from ..support import bar, printable
from .content import data, facts, of_detection, of_labelled, of_unlabelled
from .document import Document, refuse_in_input, script_data
from .thumbnails import Thumbnails, chosen


def report(
    stored: StoredModel,
    path: PathLike,
    target: PathLike,
    *,
    threshold: float | None = None,
    seed: int = 0,
    detection: ProbabilityOfDetection | None = None,
) -> Evaluation | Counter[str]:
    """Inspect a folder and write a report of it.

    Parameters
    ----------
    stored : StoredModel
        The model.
    path : path
        A folder of labelled images (with good ones or masks among them) or a CSV of them; a folder
        of images without labels; or one that `predict` has written: then the images of its
        last run are inspected.
    target : path
        The HTML file; replaced if it is there.
    threshold : float, optional
        Score in [0, 1] above which an image is anomalous; None for that of the run which `predict`
        has recorded, or 0.8.
    seed : int
        Of the resampling behind some intervals.
    detection : ProbabilityOfDetection, optional
        Curves of this model, to be drawn as well.

    Returns
    -------
    Evaluation or Counter of str to int
        Figures, or how many are "good", "anomalous" and "errors" without labels.

    Raises
    ------
    PathError, DataError
        There is nothing to inspect.
    OptionError
        The report would lie in the input, or is not an HTML file; or the curves are of another
        model.
    OutputError
        It cannot be written.
    """
    if detection is not None and detection.model != stored.digest:
        raise OptionError(
            "The curves of detection are of another model, or of another limit of this one. Make "
            "them again with detection_curve."
        )
    folder = check_path(path, "path")
    if (folder / JSONL).is_file():
        return _report_run(stored, folder, target, threshold, detection)
    threshold = LIMIT_SCORE if threshold is None else threshold
    labelled = find_labelled(folder)
    if folder.is_file() or any(not i.is_defective or i.mask is not None for i in labelled.items):
        return report_labelled(
            stored, labelled, target, threshold=threshold, seed=seed, detection=detection
        )
    paths = [item.path for item in labelled.items]
    notes = [labelled.doubt] if labelled.doubt else []
    notes += [f"Skipped: {labelled.passed_over}."] if labelled.passed_over else []
    return _report_unlabelled(
        stored, paths, str(folder), target, threshold, folder, detection, notes
    )


def evaluated(
    stored: StoredModel,
    labelled: LabelledImages,
    target: PathLike | None,
    *,
    threshold: float,
    seed: int,
) -> Evaluation:
    """Evaluate a model on labelled images; with a report, if `target` names one.

    Parameters, result and errors are those of `evaluation.evaluate`; `target` is that of `report`,
    or None for none.
    """
    if target is None:
        return evaluate(stored, labelled, threshold=threshold, seed=seed)
    return report_labelled(stored, labelled, target, threshold=threshold, seed=seed)


def told(found: Evaluation | Counter[str], target: PathLike | None) -> str:
    """What came of it and where the report is, for people."""
    text = summary(found, None) if isinstance(found, Counter) else str(found)
    return text if target is None else f"{text}\nWrote {target}"


def report_labelled(
    stored: StoredModel,
    labelled: LabelledImages,
    target: PathLike,
    *,
    threshold: float,
    seed: int = 0,
    detection: ProbabilityOfDetection | None = None,
) -> Evaluation:
    """`evaluate`, with a report of it; parameters and errors as there and in `report`."""
    paths = [item.path for item in labelled.items]
    root = Path(labelled.source) if os.path.isdir(labelled.source) else None
    with _document(target, paths, root) as page, Thumbnails(stored, len(paths)) as thumbnails:
        found = evaluate(stored, labelled, threshold=threshold, seed=seed, observer=thumbnails)
        told = of_labelled(found) | of_detection(detection)
        _write(page, stored, thumbnails, found.threshold, labelled.source, told)
    return found


def _report_run(
    stored: StoredModel,
    folder: Path,
    target: PathLike,
    threshold: float | None,
    detection: ProbabilityOfDetection | None,
) -> Counter[str]:
    """Of what `predict` has recorded last."""
    last: dict[str, Any] = {}
    names: dict[str, None] = {}  # in order, each once
    for line in read_records(folder / JSONL):
        if line.get("run") != last.get("run"):
            names = {}
        last = line
        if isinstance(line.get("file"), str):
            names[line["file"]] = None
    if not names:
        raise DataError(
            f"{folder / JSONL} names no files: nothing was recorded, or arrays were inspected. "
            "Name the folder of the images."
        )
    if threshold is None:
        recorded = last.get("threshold")
        threshold = recorded if isinstance(recorded, float) else LIMIT_SCORE
    warnings = []
    if last.get("detector") != stored.detector and last.get("model") != stored.digest:
        warnings.append(
            "The run was made with another model. Its images were inspected again with this one."
        )
    paths = [Path(name) for name in names]
    source = f"the last run in {folder}"
    return _report_unlabelled(stored, paths, source, target, threshold, None, detection, warnings)


def _report_unlabelled(
    stored: StoredModel,
    paths: list[Path],
    source: str,
    target: PathLike,
    threshold: float,
    root: Path | None,
    detection: ProbabilityOfDetection | None,
    warnings: Iterable[str] = (),
) -> Counter[str]:
    inspector = Inspector(stored, threshold=threshold, keep_maps=False)
    sources = file_sources(paths)
    with (
        _document(target, paths, root) as page,
        Thumbnails(stored, len(paths)) as thumbnails,
        bar(len(paths), "Inspecting") as step,
        closing(inspector.scan(sources, thumbnails.look)) as found,
    ):
        for path, (prediction, seen) in zip(paths, found, strict=True):
            thumbnails.add(path, None, prediction, seen)
            step("")
        predictions = [entry.prediction for entry in thumbnails.entries]
        known = known_images(stored, thumbnails.n_learnt, thumbnails.n_calibrated)
        counts, told = of_unlabelled(stored, predictions, [*warnings, *known])
        told |= of_detection(detection)
        _write(page, stored, thumbnails, inspector.threshold, source, told)
    return counts


def _document(target: PathLike, images: Iterable[Path], root: Path | None) -> Document:
    """The page, unless it would lie in the folder that it is about."""
    document = Document(target, "report.html", ["report.css"], ["report.js"])
    refuse_in_input(target, images, root)
    return document


def _write(
    page: Document,
    stored: StoredModel,
    thumbnails: Thumbnails,
    threshold: float,
    source: str,
    told: dict[str, Any],
) -> None:
    shown = chosen(thumbnails.entries)
    page.write(
        **told,
        source=printable(source),
        name=printable(Path(source).name or source),
        method=stored.manifest.plan.method,
        created=time.strftime("%Y-%m-%d %H:%M %z"),
        threshold=threshold,
        facts=facts(stored, thumbnails, source),
        data=script_data(data(stored, thumbnails, shown, threshold, told)),
        pictures=_pictures(thumbnails, shown),
        n_pictures=len(shown),
        n_images=len(thumbnails.entries),
    )


def _pictures(thumbnails: Thumbnails, shown: set[int]) -> Iterator[tuple[int, str, str]]:
    """Number, photograph and heatmap of each image that the page shows, base64."""
    for n in sorted(shown):
        photo, heat = thumbnails.pictures(thumbnails.entries[n])
        yield n, base64.b64encode(photo).decode(), base64.b64encode(heat).decode()
