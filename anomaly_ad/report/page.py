"""Inspect a set of images and write one HTML file that tells what came out."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from ..errors import DataError, OptionError
from ..evaluation import Evaluation, evaluate
from ..images import PathLike, check_path
from ..images.labelled import LabelledImages, find_labelled
from ..images.sources import file_sources
from ..inspection import Inspector, summary
from ..inspection.pages import script
from ..inspection.records import JSONL, cannot_write, read_records
from ..model import LIMIT_SCORE, StoredModel
from ..support import bar, printable
from ..web import asset, content_policy
from .content import data, facts, of_labelled, of_unlabelled, of_what_was_seen
from .thumbnails import Thumbnails, chosen

_SUFFIXES = (".html", ".htm")


def report(
    stored: StoredModel,
    path: PathLike,
    target: PathLike,
    *,
    threshold: float | None = None,
    seed: int = 0,
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

    Returns
    -------
    Evaluation or Counter of str to int
        Figures, or how many are "good", "anomalous" and "errors" without labels.

    Raises
    ------
    PathError, DataError
        There is nothing to inspect.
    OptionError
        The report would lie in the input, or is not an HTML file.
    OutputError
        It cannot be written.
    """
    folder = check_path(path, "path")
    if (folder / JSONL).is_file():
        return _report_run(stored, folder, target, threshold)
    threshold = LIMIT_SCORE if threshold is None else threshold
    labelled = find_labelled(folder)
    if folder.is_file() or any(not i.is_defective or i.mask is not None for i in labelled.items):
        return report_labelled(stored, labelled, target, threshold=threshold, seed=seed)
    paths = [item.path for item in labelled.items]
    notes = [labelled.doubt] if labelled.doubt else []
    notes += [f"Skipped: {labelled.passed_over}."] if labelled.passed_over else []
    return _report_unlabelled(stored, paths, str(folder), target, threshold, folder, notes)


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
) -> Evaluation:
    """`evaluate`, with a report of it; parameters and errors as there and in `report`."""
    paths = [item.path for item in labelled.items]
    root = Path(labelled.source) if os.path.isdir(labelled.source) else None
    with _Page(stored, target, paths, root) as page, Thumbnails(stored, len(paths)) as thumbnails:
        found = evaluate(stored, labelled, threshold=threshold, seed=seed, observer=thumbnails)
        page.write(thumbnails, found.threshold, labelled.source, of_labelled(found))
    return found


def _report_run(
    stored: StoredModel, folder: Path, target: PathLike, threshold: float | None
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
    return _report_unlabelled(stored, paths, source, target, threshold, None, warnings)


def _report_unlabelled(
    stored: StoredModel,
    paths: list[Path],
    source: str,
    target: PathLike,
    threshold: float,
    root: Path | None,
    warnings: Iterable[str] = (),
) -> Counter[str]:
    inspector = Inspector(stored, threshold=threshold, keep_maps=False)
    sources = file_sources(paths)
    with (
        _Page(stored, target, paths, root) as page,
        Thumbnails(stored, len(paths)) as thumbnails,
        bar(len(paths), "Inspecting") as step,
        closing(inspector.scan(sources, thumbnails.look)) as found,
    ):
        for path, (prediction, seen) in zip(paths, found, strict=True):
            thumbnails.add(path, None, prediction, seen)
            step("")
        predictions = [entry.prediction for entry in thumbnails.entries]
        counts, told = of_unlabelled(stored, predictions, warnings)
        page.write(thumbnails, inspector.threshold, source, told)
    return counts


class _Page:
    """Takes its place before the work begins, and writes the page after it.

    Use it as a context manager: a page is there as a whole or not at all.
    """

    def __init__(
        self, stored: StoredModel, target: PathLike, images: Iterable[Path], root: Path | None
    ) -> None:
        import jinja2  # only reports need it

        self._stored = stored
        self._target = check_path(target, "The report")
        if self._target.suffix.lower() not in _SUFFIXES or os.path.isdir(self._target):
            raise OptionError(f"A report is a file that ends in .html. Received: {target!s}")
        home = Path(os.path.realpath(self._target.parent))
        folders = {image.parent for image in images} | ({root} if root else set())
        if not {Path(os.path.realpath(f)) for f in folders}.isdisjoint((home, *home.parents)):
            raise OptionError(
                f"The report {target} would lie in the folder that it is about. Choose another "
                "place; nothing is ever written into the input."
            )
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        self._template = environment.from_string(_own("report.html"))
        self._fresh = self._target.with_name(f".{secrets.token_hex(8)}.tmp")

    def __enter__(self) -> Self:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._fresh.open("w", encoding="utf-8")
        except OSError as error:
            raise cannot_write(self._target.parent, error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._fresh.unlink(missing_ok=True)

    def write(
        self, thumbnails: Thumbnails, threshold: float, source: str, told: dict[str, Any]
    ) -> None:
        """Fill the template and put the whole page in its place at once."""
        shown = chosen(thumbnails.entries)
        style, code = asset("look.css") + _own("report.css"), script() + _own("report.js")
        told["warnings"] = [*told["warnings"], *of_what_was_seen(self._stored, thumbnails)]
        chunks = self._template.generate(
            **told,
            source=printable(source),
            name=printable(Path(source).name or source),
            method=self._stored.manifest.plan.method,
            created=time.strftime("%Y-%m-%d %H:%M %z"),
            threshold=threshold,
            facts=facts(self._stored, thumbnails, source),
            data=_script(data(self._stored, thumbnails, shown, threshold, told)),
            pictures=_pictures(thumbnails, shown),
            n_pictures=len(shown),
            n_images=len(thumbnails.entries),
            style=style,
            code=code,
            policy=content_policy(style, code),
        )
        try:
            self._file.writelines(chunks)
            self._file.close()
            os.replace(self._fresh, self._target)
        except OSError as error:
            raise cannot_write(self._target.parent, error) from error


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _script(values: Any) -> str:
    """JSON that may stand in a script element: no '<' that could end it."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _pictures(thumbnails: Thumbnails, shown: set[int]) -> Iterator[tuple[int, str, str]]:
    """Number, photograph and heatmap of each image that the page shows, base64."""
    for n in sorted(shown):
        photo, heat = thumbnails.pictures(thumbnails.entries[n])
        yield n, base64.b64encode(photo).decode(), base64.b64encode(heat).decode()
