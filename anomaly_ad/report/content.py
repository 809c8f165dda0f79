"""What a report says: figures, tables, and facts of the model and the machine."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._version import __version__
from ..evaluation import Evaluation, ProbabilityOfDetection
from ..evaluation.intervals import Estimate, wilson
from ..evaluation.rates import AtRate, at_rates, command
from ..images.labelled import GOOD
from ..inspection import Prediction, count_verdicts, probe
from ..model import StoredModel
from ..support import cpu_count, printable
from .thumbnails import Thumbnails


def data(
    stored: StoredModel,
    seen: Thumbnails,
    shown: set[int],
    threshold: float,
    told: dict[str, Any],
) -> dict[str, Any]:
    """What the page computes with."""
    limit = stored.manifest.calibration.image
    try:
        root = os.path.commonpath([entry.path.absolute().parent for entry in seen.entries])
    except ValueError:  # on several drives
        root = None
    images = [
        {
            "name": printable(os.path.relpath(entry.path, root) if root else entry.path),
            "kind": None if entry.kind is None else printable(entry.kind),
            "raw": entry.prediction.raw_score,
            "score": entry.prediction.score,
            "size": entry.prediction.image_size,
            "mask": entry.mask,
            "error": entry.prediction.error and printable(entry.prediction.error),
            "shown": n in shown,
        }
        for n, entry in enumerate(seen.entries)
    ]
    return {
        "threshold": threshold,
        "median": limit.median,
        "limit": limit.limit,
        "best": told["best"],
        "command": f"anomaly-ad calibrate {shlex.quote(printable(stored.directory))} --limit ",
        "pod": told["detection"] and told["detection"]["curves"],
        "labelled": told["labelled"],
        "good": GOOD,
        "kinds": [kind.name for kind in told["kinds"]],
        "images": images,
    }


def of_labelled(found: Evaluation) -> dict[str, Any]:
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
    counts = {}
    if found.n_good:
        counts["Good rejected"] = [f"{row.rejected:,} of {row.n_good:,}" for row in found.rates]
    if found.n_defective:
        counts["Defective found"] = [f"{row.found:,} of {row.n_defective:,}" for row in found.rates]
    return {
        "labelled": True,
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
        "best": found.best_f1_threshold,
        "rates": _rates(found.rates, counts),
        "next_step": found.next_step and printable(found.next_step),
    }


def of_detection(found: ProbabilityOfDetection | None) -> dict[str, Any]:
    """Curves of detection, for the template."""
    if found is None:
        return {"detection": None}
    scale = 1.0 if found.mm_per_pixel is None else found.mm_per_pixel
    drawn = [
        {
            "kind": printable(curve.kind),
            "sizes": [scale * size for size in curve.sizes],
            "found": curve.found,
            "a90": curve.a90 and scale * curve.a90,
            "low": curve.a90_low and scale * curve.a90_low,
            "high": curve.a90_high and scale * curve.a90_high,
            # logit POD(a) = intercept + slope log a, a in the unit that is shown
            "intercept": curve.intercept,
            "slope": curve.slope,
            "shift": math.log(scale),
        }
        for curve in found.all_curves
    ]
    told = {
        "unit": "pixels" if found.mm_per_pixel is None else "mm",
        "statement": found.statement,
        "rows": [curve.row(found.mm_per_pixel) for curve in found.all_curves],
        "remarks": found.remarks,
        "curves": drawn,
    }
    return {"detection": told}


def _rates(rows: Sequence[AtRate], counts: dict[str, list[str]]) -> dict[str, Any] | None:
    """Limits for false alarm rates with columns of counts; None without any."""
    if not rows:
        return None
    lines = list(zip(rows, zip(*counts.values(), strict=True), strict=True))
    return {"columns": list(counts), "lines": lines, "command": command(rows)}


def _missed(found: Evaluation) -> Estimate | None:
    rate = found.detection_rate
    return None if rate is None else Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low)


def of_unlabelled(
    stored: StoredModel, predictions: Iterable[Prediction], warnings: Iterable[str]
) -> tuple[Counter[str], dict[str, Any]]:
    """How many verdicts of each kind there are without labels, and what the template says."""
    predictions = list(predictions)
    counts = count_verdicts(predictions)
    raw = [one.raw_score for one in predictions if one.raw_score is not None]
    rates = at_rates(stored)
    beyond = [f"{sum(x > row.limit for x in raw):,} of {len(raw):,}" for row in rates]
    inspected = counts["good"] + counts["anomalous"]
    share = wilson(counts["anomalous"] / inspected, inspected) if inspected else None
    return counts, {
        "labelled": False,
        "kinds": (),
        "metrics": [],
        "warnings": list(warnings),
        "n_good": 0,
        "n_defective": 0,
        "n_errors": counts["errors"],
        "tiles": [_tile("all", counts["anomalous"], inspected, share, counts["errors"])],
        "layout": "no labels: it is not known which of these images are good",
        "rates": _rates(rates, {"Anomalous": beyond}),
        "best": None,
        "next_step": None,
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


def facts(stored: StoredModel, seen: Thumbnails, images_from: str) -> dict[str, dict[str, str]]:
    """What the figures are of: the model, the images, this machine."""
    manifest = stored.manifest
    plan, limit, training = manifest.plan, manifest.calibration.image, manifest.training
    size = sum(entry["size"] for entry in stored.files.values())
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
        "Input": f"{plan.framing}, {plan.precision}",
        "Trained on": f"{training.get('n_fit')} images, {manifest.created}",
        "Fingerprint of these": str(training.get("images", "unknown"))[:16],
        "Decision limit (0.8)": stated,
        "Size": f"{size / 1e6:.1f} MB",
        "Digest": stored.digest,
    }
    inspected = [entry for entry in seen.entries if entry.prediction.error is None]
    data = {
        "Source": printable(images_from),
        "Images": f"{len(inspected):,} inspected"
        + (f", {len(seen.entries) - len(inspected)} not" if inspected != seen.entries else ""),
        "Known to the model": f"{seen.n_learnt} were in its training, {seen.n_calibrated} have "
        "set its limit",
        "Fingerprint": seen.fingerprint or "none",
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
        "Peak memory of inspecting": "not reported by this system"
        if speed.peak_mb is None
        else f"{speed.peak_mb:.0f} MB",
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
