"""Inspect a set of images and write one HTML file that tells what came out."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from .._version import __version__
from ..errors import DataError, OptionError
from ..evaluation.figures import Evaluation, evaluate
from ..evaluation.intervals import Estimate, wilson
from ..images import PathLike, check_path
from ..images.labelled import GOOD, LabelledImages, find_labelled
from ..images.sources import file_sources
from ..inspection.inspector import Inspector, count_verdicts
from ..inspection.records import JSONL, cannot_write, read_records
from ..model.calibration import LIMIT_SCORE
from ..model.store import StoredModel
from ..support.progress import bar, printable
from ..support.threads import cpu_count
from ..web import asset, content_policy
from . import probe
from .album import Album, chosen

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
        A folder of judged images (with good ones or masks among them) or a CSV of them; a folder of
        images that nobody has judged; or one that `predict` has written: then the images of its
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
        Figures, or how many are "good", "anomalous" and "errors" where nobody has judged.

    Raises
    ------
    PathError, DataError
        There is nothing to inspect.
    OptionError
        The report would lie in the input, or is no HTML file.
    OutputError
        It cannot be written.
    """
    folder = check_path(path, "path")
    if (folder / JSONL).is_file():
        return _report_run(stored, folder, target, threshold)
    threshold = LIMIT_SCORE if threshold is None else threshold
    labelled = find_labelled(folder)
    if folder.is_file() or any(not i.is_defective or i.mask is not None for i in labelled.items):
        return report_judged(stored, labelled, target, threshold=threshold, seed=seed)
    paths = [item.path for item in labelled.items]
    notes = [labelled.doubt] if labelled.doubt else []
    notes += [f"Passed over: {labelled.passed_over}."] if labelled.passed_over else []
    return _report_unjudged(stored, paths, str(folder), target, threshold, folder, notes)


def report_judged(
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
    with _Page(stored, target, paths, root) as page, Album(stored, len(paths)) as album:
        found = evaluate(stored, labelled, threshold=threshold, seed=seed, witness=album)
        page.write(album, found.threshold, labelled.source, _judged(found))
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
    return _report_unjudged(stored, paths, source, target, threshold, None, warnings)


def _report_unjudged(
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
        Album(stored, len(paths)) as album,
        bar(len(paths), "Inspecting") as step,
        closing(inspector.scan(sources, album.look)) as found,
    ):
        for path, (prediction, seen) in zip(paths, found, strict=True):
            album.add(path, None, prediction, seen)
            step("")
        counts = count_verdicts(entry.prediction for entry in album.entries)
        page.write(album, inspector.threshold, source, _unjudged(counts, warnings))
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

    def write(self, album: Album, threshold: float, source: str, told: dict[str, Any]) -> None:
        """Fill the template and put the whole page in its place at once."""
        shown = chosen(album.entries)
        style, code = asset("look.css") + _own("report.css"), asset("limit.js") + _own("report.js")
        told["warnings"] = [*told["warnings"], *_of_what_was_seen(self._stored, album)]
        chunks = self._template.generate(
            **told,
            source=printable(source),
            name=printable(Path(source).name or source),
            method=self._stored.manifest.plan.method,
            created=time.strftime("%Y-%m-%d %H:%M %z"),
            threshold=threshold,
            facts=_facts(self._stored, album, source),
            data=_script(_data(self._stored, album, shown, threshold, told)),
            pictures=_pictures(album, shown),
            n_pictures=len(shown),
            n_images=len(album.entries),
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


def _of_what_was_seen(stored: StoredModel, album: Album) -> Iterator[str]:
    """What makes the counts of these images better than those of others."""
    if album.n_learnt:
        yield (
            f"{album.n_learnt} of these images were in the training. Their scores are lower than "
            "those of other images and say nothing of the model."
        )
    if album.n_calibrated:
        yield (
            f"{album.n_calibrated} of these images have set the limit "
            f"({stored.manifest.calibration.record.get('by')}). The counts at it are better than "
            "they will be on other images."
        )


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _script(values: Any) -> str:
    """JSON that may stand in a script element: no '<' that could end it."""
    return json.dumps(values, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _data(
    stored: StoredModel, album: Album, shown: set[int], threshold: float, told: dict[str, Any]
) -> dict[str, Any]:
    """What the page computes with."""
    limit = stored.manifest.calibration.image
    try:
        root = os.path.commonpath([entry.path.absolute().parent for entry in album.entries])
    except ValueError:  # on several drives
        root = None
    images = [
        {
            "name": printable(os.path.relpath(entry.path, root) if root else entry.path),
            "kind": None if entry.kind is None else printable(entry.kind),
            "raw": entry.prediction.raw_score,
            "score": entry.prediction.score,
            "size": entry.prediction.image_size,
            "boxes": entry.prediction.boxes.tolist(),
            "error": entry.prediction.error and printable(entry.prediction.error),
            "shown": n in shown,
        }
        for n, entry in enumerate(album.entries)
    ]
    return {
        "threshold": threshold,
        "median": limit.median,
        "limit": limit.limit,
        "judged": told["judged"],
        "good": GOOD,
        "kinds": [kind.name for kind in told["kinds"]],
        "images": images,
    }


def _pictures(album: Album, shown: set[int]) -> Iterator[tuple[int, str, str]]:
    """Number, photograph and heatmap of each image that the page shows, base64."""
    for n in sorted(shown):
        photo, heat = album.pictures(album.entries[n])
        yield n, base64.b64encode(photo).decode(), base64.b64encode(heat).decode()


def _judged(found: Evaluation) -> dict[str, Any]:
    """What an evaluation tells, for the template."""
    named = {
        "Image AUROC": ("auroc", "how well the scores rank defective above good; 1 is perfect"),
        "Average precision": ("average_precision", "area under the precision-recall curve"),
        f"F1 at {found.threshold:g}": ("f1", "of the verdicts at the limit"),
        "Best F1": ("best_f1", "at the limit that suits these images best"),
        "Pixel AUROC": ("pixel_auroc", "how well the maps find the masks' pixels"),
        "AUPRO to 0.3": ("aupro", "the same, every defective region counting as much"),
    }
    metrics = [
        {
            "name": name,
            "meaning": meaning,
            "estimate": getattr(found, attribute),
            "omitted": found.omitted.get(attribute),
        }
        for name, (attribute, meaning) in named.items()
    ]
    return {
        "judged": True,
        "kinds": [replace(kind, name=printable(kind.name)) for kind in found.kinds],
        "metrics": metrics,
        "warnings": [printable(warning) for warning in found.warnings],
        "n_good": found.n_good,
        "n_defective": found.n_defective,
        "n_errors": len(found.errors),
        "tiles": [
            _tile("good", found.rejected, found.n_good, found.rejection_rate, found.errors),
            _tile(
                "bad",
                found.n_defective - found.found,
                found.n_defective,
                _missed(found),
                found.errors,
            ),
        ],
        "layout": found.layout,
    }


def _missed(found: Evaluation) -> Estimate | None:
    rate = found.detection_rate
    return None if rate is None else Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low)


def _unjudged(counts: Counter[str], warnings: Iterable[str]) -> dict[str, Any]:
    inspected = counts["good"] + counts["anomalous"]
    share = wilson(counts["anomalous"] / inspected, inspected) if inspected else None
    return {
        "judged": False,
        "kinds": (),
        "metrics": [],
        "warnings": list(warnings),
        "n_good": 0,
        "n_defective": 0,
        "n_errors": counts["errors"],
        "tiles": [_tile("all", counts["anomalous"], inspected, share, counts["errors"])],
        "layout": "not judged: nobody has said which of these images are good",
    }


def _tile(
    what: str, count: int, total: int, share: Estimate | None, errors: object
) -> dict[str, Any]:
    """A count as a sentence; the page's script says the same for other limits."""
    be = "is" if count == 1 else "are"
    sentences = {
        "good": (f"of {total:,} good parts {be} rejected", "false alarms", "good"),
        "bad": (
            f"of {total:,} defective parts {'slips' if count == 1 else 'slip'} through",
            "misses",
            "defective",
        ),
        "all": (f"of {total:,} parts {be} anomalous", "anomalous", ""),
    }
    text, title, kind = sentences[what]
    parts = f"{kind} parts" if kind else "parts"
    return {
        "what": what,
        "count": count,
        "total": total,
        "text": text,
        "title": title,
        "missing": f"No {parts} could be inspected."
        if errors
        else f"There are no {parts} among these images.",
        "interval": None if share is None else share.text(100, 1),
    }


def _facts(stored: StoredModel, album: Album, images_from: str) -> dict[str, dict[str, str]]:
    """What the figures are of: the model, the images, this machine."""
    manifest = stored.manifest
    plan, limit, training = manifest.plan, manifest.calibration.image, manifest.training
    size = sum(entry["size"] for entry in stored.files.values())
    colour = "gray" if plan.spec.channels == 1 else "colour"
    record = manifest.calibration.record
    source = record.get("source", "the training")
    stated = (
        f"raw score {limit.limit:.6g}, from {limit.n_images} good images of {printable(source)}"
    )
    if not manifest.calibration.has_rate:
        stated = f"raw score {limit.limit:.6g} ({record.get('created')}), {printable(source)}"
    stated += f"; {manifest.calibration.promise}"
    model = {
        "Method": plan.method,
        "Parameters": ", ".join(f"{k}={v}" for k, v in plan.parameters.items()) or "none",
        "Input": f"{plan.spec.height}x{plan.spec.width} {colour}, {plan.spec.fit}, "
        f"{plan.precision}",
        "Trained on": f"{training.get('n_fit')} images, {manifest.created}",
        "Fingerprint of these": str(training.get("images", "unknown"))[:16],
        "Limit of good (0.8)": stated,
        "Size": f"{size / 1e6:.1f} MB",
        "Digest": stored.digest,
    }
    inspected = [entry for entry in album.entries if entry.prediction.error is None]
    data = {
        "Source": printable(images_from),
        "Images": f"{len(inspected):,} inspected"
        + (f", {len(album.entries) - len(inspected)} not" if inspected != album.entries else ""),
        "Known to the model": f"{album.n_learnt} were in its training, {album.n_calibrated} have "
        "set its limit",
        "Fingerprint": album.fingerprint or "none",
    }
    return {
        "Model": model,
        "Images": data,
        "This machine": _machine(stored, [entry.path for entry in inspected]),
        "Trained with": manifest.versions,
    }


def _machine(stored: StoredModel, images: list[Path]) -> dict[str, str]:
    facts = {
        "Processor": f"{_processor()}, {cpu_count()} cores used",
        "This report": f"anomaly-ad {__version__}",
        "System": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    speed = probe.measure(stored.directory, images)
    if speed is None:
        return {**facts, "Speed": "could not be measured"}
    return {
        **facts,
        "One image, file to verdict": f"{speed.image_ms:.1f} ms, median of up to ten of these",
        "New process to first verdict": f"{speed.start_s:.2f} s",
        "Peak memory of inspecting": "not told by this system"
        if speed.peak_mb is None
        else f"{speed.peak_mb:.0f} MB",
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
