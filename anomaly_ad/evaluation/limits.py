"""Where good ends, taken from whatever images a user has: good ones, defective ones, or none.

docs/limits.md explains what each limit promises and what it assumes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError
from ..images import PathLike, find_training_images
from ..images.groups import Groups, grouped, numbered
from ..images.labelled import GOOD, Labels, find_labelled
from ..images.sources import file_sources
from ..inspection import Inspected, Inspector
from ..model import Calibration, GoodScores, StoredModel, check_new_groups, check_rate
from ..runtime.devices import CPU
from ..support import bar, printable
from .intervals import Estimate, Ranking, wilson
from .rates import A_LIST, at_rates, next_step, table

# From the median of good images to their limit: a limit nearer to the median would be noise.
_NEAREST = 1e-3


def calibrate(
    stored: StoredModel,
    directory: Path,
    *,
    false_alarm_rate: float | None = None,
    good: PathLike | Iterable[PathLike] | None = None,
    groups: Groups | None = None,
    defective: PathLike | Iterable[PathLike] | None = None,
    labels: Labels | None = None,
    cost_ratio: float | None = None,
    limit: float | None = None,
    another_day: PathLike | Iterable[PathLike] | None = None,
) -> tuple[StoredModel, str]:
    """Move a model's limits, save it, and say what they mean.

    Parameters
    ----------
    stored : StoredModel
        The model.
    directory : Path
        Where it is saved.
    false_alarm_rate, good, groups, defective, labels, cost_ratio, limit, another_day
        See `AD.calibrate`.

    Returns
    -------
    (StoredModel, str)
        The model with its new limits, and the lines for people.
    """
    ways = {
        "limit": limit is not None,
        "defective": defective is not None,
        "good or false_alarm_rate": good is not None or false_alarm_rate is not None,
    }
    chosen = [name for name, is_given in ways.items() if is_given]
    if len(chosen) > 1:
        raise OptionError(f"There can be only one limit: give either {' or '.join(chosen)}.")
    if not chosen and another_day is None:
        raise OptionError(
            "calibrate takes one of: false_alarm_rate (and good, a folder of good images), "
            "defective (a folder of labelled images), limit (a raw score), or another_day."
        )
    if defective is None and (labels is not None or cost_ratio is not None):
        raise OptionError("labels and cost_ratio belong to `defective`, which is not given.")
    if good is None and groups is not None:
        raise OptionError(
            "groups belong to `good`, which is not given; images of the training keep theirs."
        )
    if not (stored.is_at_home or stored.shown) and (good is None or defective is not None):
        raise OptionError(
            f"On {stored.engine.device.name} a limit needs good images that are inspected there: "
            "give `good`, a folder of images that the model has not learnt."
        )
    reference: GoodScores | None = None  # where the good images behind the limit become others
    compared: tuple[NDArray[np.float64], ...] = ()  # scores of good and defective images
    if limit is not None:
        calibration, lines = _by_hand(stored, limit)
    elif defective is not None:
        calibration, lines, compared = _from_labelled(stored, defective, labels, cost_ratio)
    elif chosen:
        calibration, lines, reference = _from_good(stored, good, groups, false_alarm_rate)
    else:
        calibration, lines = stored.manifest.calibration, []
    if another_day is not None:
        scores = (stored.good_scores() if reference is None else reference).scores
        calibration, more = _on_another_day(stored, calibration, scores, another_day)
        lines += more
    device = _device_of(stored, reference)
    if device != CPU:
        calibration = replace(calibration, record={**calibration.record, "device": device})
    stored = stored.with_limits(calibration, directory, reference)
    rows = at_rates(stored, *compared)
    lines += table(rows)
    if compared and cost_ratio is None:  # a ratio has said already what is better
        limit = calibration.image.limit
        step = next_step(rows, *(int((scores > limit).sum()) for scores in compared))
        lines += [printable(step)] if step else []
    return stored, "\n".join(lines)


def _device_of(stored: StoredModel, reference: GoodScores | None) -> str:
    """The kind of device that the scores behind new limits come from."""
    if reference is None:  # as before
        return stored.manifest.calibration.device
    return stored.engine.device.kind if reference.digests else CPU


def _from_good(
    stored: StoredModel,
    good: PathLike | Iterable[PathLike] | None,
    groups: Groups | None,
    rate: float | None,
) -> tuple[Calibration, list[str], GoodScores]:
    """The limit for a rate, and the images that it comes from."""
    rate = stored.manifest.plan.false_alarm_rate if rate is None else rate
    check_rate(rate)
    rate = float(rate)
    source, not_used = "the training", []
    if good is None:
        scored = stored.good_scores(of_training=True)
    else:
        found = find_training_images(good)
        found = found if groups is None else grouped(found, groups)
        scored = _score(stored, found.paths, found.groups)
        if not len(scored):
            raise DataError(
                f"All of these were used in training: {found}. A limit needs images that were not: "
                "take new photographs."
            )
        source = str(good) if isinstance(good, (str, os.PathLike)) else A_LIST
        not_used = [f"Not used: {text}." for text in found.passed_over]
    count = len(scored)
    calibration = scored.calibration(rate)
    image = calibration.image
    record = _record("good images", source, n_good=count, asked_rate=rate)
    record |= {"stated_rate": image.stated_rate, "left_out": scored.left_out}
    record["digests"] = list(scored.digests)
    calibration = replace(calibration, record=record)
    lines = [
        f"Decision limit: raw score {image.limit:.6g}, from {count} good images of "
        f"{printable(source)}: {calibration.promise}.",
        *map(printable, not_used),
    ]
    if scored.left_out:
        lines.append(f"{scored.left_out} images were left out: seen in training, or copies.")
    if image.stated_rate > rate:
        lines.append(f"A rate of {rate:.1%} needs at least {image.needed}.")
    return calibration, lines, scored


def _by_hand(stored: StoredModel, limit: float) -> tuple[Calibration, list[str]]:
    if isinstance(limit, bool) or not isinstance(limit, Real):
        raise OptionError(f"limit is a raw score, a number. Received: {limit!r}.")
    scores = stored.good_scores().scores
    above = int((scores > limit).sum())
    record = _record("by hand", "the user", n_good=len(scores), rejected=above)
    record["good_source"] = stored.manifest.calibration.good_source
    calibration = stored.manifest.calibration.moved(float(limit), scores, record)
    return calibration, [
        f"Limit by hand: raw score {limit:.6g}. {above} of the {len(scores)} good images of the "
        f"calibration exceed it; {calibration.promise}."
    ]


def _from_labelled(
    stored: StoredModel,
    path: PathLike | Iterable[PathLike],
    labels: Labels | None,
    cost_ratio: float | None,
) -> tuple[Calibration, list[str], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The limit of best F1 or least cost, and the scores of good and defective that it is from."""
    if cost_ratio is not None and (
        isinstance(cost_ratio, bool) or not isinstance(cost_ratio, Real) or not 0 < cost_ratio < 1e9
    ):
        raise OptionError(
            "cost_ratio is what a false alarm costs compared with a miss, a number above 0 such as "
            f"0.1. Received: {cost_ratio!r}."
        )
    labelled = find_labelled(path, labels)
    if labelled.doubts and not labelled.counts[GOOD]:
        raise DataError(
            f"{labelled.doubt} A limit from images whose labels are in doubt is refused; if all "
            "are defective, rename what may mean good."
        )
    kinds = {
        is_defective: [item.path for item in labelled.items if item.is_defective == is_defective]
        for is_defective in (False, True)
    }
    if not kinds[True]:
        raise DataError(
            f"{labelled} has no defective images. For a limit from good images alone give them as "
            "`good`."
        )
    held_out = stored.good_scores()
    good = _score(stored, kinds[False]) if kinds[False] else None
    defective = _score(stored, kinds[True])
    if not len(defective.scores):
        raise DataError(
            "All of these defective images were used in training, as good ones. Train the model "
            "again without them."
        )
    if good is not None and len(good.scores):
        scores = good.scores
        where = f"{len(scores)} good ones there"
    else:
        scores = held_out.scores
        where = f"{len(scores)} good ones of the calibration"
    seen = defective.left_out + (0 if good is None else good.left_out)
    only_good = held_out.calibration(stored.manifest.plan.false_alarm_rate).image
    median = stored.manifest.calibration.image.median
    lowest = median + _NEAREST * (only_good.limit - median)
    ranking = Ranking(scores, defective.scores)
    name, by = "best F1", ""
    if cost_ratio is None:
        best, chosen = ranking.limit_of_best_f1(), ranking.limit_of_best_f1(lowest)
    else:
        name, by = "least cost", f", where a false alarm costs {cost_ratio:g} times a miss"
        best, chosen = (ranking.limit_of_least_cost(cost_ratio, x) for x in (-math.inf, lowest))
    if math.isinf(chosen):  # any that flags nothing is as good: the one that good images give
        chosen = max(only_good.limit, float(np.nextafter(ranking.scores[0], np.inf)))

    def outcome(limit: float) -> tuple[str, dict[str, Any]]:
        alarms = int((scores > limit).sum())
        misses = int((defective.scores <= limit).sum())
        text = (
            f"{alarms} of {len(scores)} good rejected "
            f"({_per_cent(wilson(alarms / len(scores), len(scores)))}), {misses} of "
            f"{len(defective.scores)} defective missed "
            f"({_per_cent(wilson(misses / len(defective.scores), len(defective.scores)))})"
        )
        return text, {"limit": limit, "false_alarms": alarms, "misses": misses}

    text, counts = outcome(chosen)
    text_good, counts_good = outcome(only_good.limit)
    _, counts_best = outcome(best)
    is_best = all(counts[key] == counts_best[key] for key in ("false_alarms", "misses"))
    record = _record(
        name,
        labelled.source,
        layout=labelled.layout,
        n_good=len(scores),
        n_defective=len(defective.scores),
        good_from=where,
        left_out=seen,
        **counts,
        good_only={**counts_good, "stated_rate": only_good.stated_rate},
        good_source=stored.manifest.calibration.good_source,
        digests=[*defective.digests, *(() if good is None else good.digests)],
    )
    if cost_ratio is not None:
        record["cost_ratio"] = float(cost_ratio)
    if not is_best:
        record["too_low"] = counts_best
    calibration = stored.manifest.calibration.moved(chosen, held_out.scores, record)
    lines = [
        f"Labelled: {printable(labelled)}; compared with {where}.",
        f"Limit by {name}{by}: raw score {chosen:.6g}: {text}.",
        f"Limit from good images alone: {only_good.limit:.6g}, for a rate of at most "
        f"{only_good.stated_rate:.1%}: {text_good}.",
        "The first limit was chosen on these images, so expect slightly worse counts on others.",
    ]
    if not is_best:
        lines.append(
            f"It is the best one allowed. The {name} of all is at {best:.6g}, with "
            f"{counts_best['false_alarms']} good rejected and {counts_best['misses']} defective "
            f"missed, but half of all good parts exceed {median:.6g}: such a limit is too low."
        )
    if labelled.passed_over:
        lines.append(f"Not used: {printable(labelled.passed_over)}.")
    if seen:
        lines.append(f"{seen} images were left out: seen in training, or copies.")
    if not is_best or counts["misses"] == len(defective.scores):
        lines.append(
            "The model hardly tells these defects from good parts. Try another method (see "
            "`anomaly-ad detectors`), a larger img_size, more good images, or light and "
            "photographs in which the defects stand out. Until then a limit for a false "
            "alarm rate, below, is safer."
        )
    return calibration, lines, (scores, defective.scores)


def _on_another_day(
    stored: StoredModel,
    calibration: Calibration,
    in_session: NDArray[np.float64],
    path: PathLike | Iterable[PathLike],
) -> tuple[Calibration, list[str]]:
    """Count what the limit rejects of good images from elsewhere; the limit stays."""
    found = find_training_images(path)
    scored = _score(stored, found.paths)
    count = len(scored.scores)
    if not count:
        raise DataError(f"All of these were used in training, not taken on another day: {found}.")
    limit = calibration.image.limit
    rejected = int((scored.scores > limit).sum())
    share = wilson(rejected / count, count)
    before = int((in_session > limit).sum())
    source = str(path) if isinstance(path, (str, os.PathLike)) else A_LIST
    entry = {"source": source, "n_good": count, "rejected": rejected}
    entry |= {"rate": share.value, "low": share.low, "high": share.high}
    record = {**calibration.record, "another_day": entry}
    stated = calibration.stated_rate
    rate = "" if stated is None else f"; the stated rate is at most {stated:.1%}"
    lines = [
        f"{rejected} of {count} good images from {printable(source)} are rejected "
        f"({_per_cent(share)}), compared with {before} of the {len(in_session)} of the calibration "
        f"({before / len(in_session):.1%}){rate}."
    ]
    if stated is not None and share.low > stated:
        lines.append(
            "These images differ from those of the calibration: the stated rate does not hold for "
            "them. Take photographs as for training, or train on images like these as well."
        )
    return replace(calibration, record=record), lines


def _score(stored: StoredModel, paths: Sequence[Path], groups: Sequence[str] = ()) -> GoodScores:
    """Scores of images that training has not seen; every file must be readable.

    Without groups, one for each file, each image is by itself.
    """
    known = set(stored.manifest.learnt)
    inspector = Inspector(stored, keep_maps=False)

    def measure(one: Inspected) -> tuple[str, float | None]:
        maxima = one.outputs.get("anomaly_map")
        return one.digest, None if maxima is None else float(maxima.max())

    scores, highest, errors, digests = [], [], [], []
    labels: list[str] = []
    with bar(len(paths), "Calibrating") as step:
        found = inspector.scan(file_sources(paths), measure)
        for index, (prediction, measured) in enumerate(found):
            if prediction.error is not None or measured is None:
                errors.append(str(prediction.error))
            elif measured[0] not in known:
                known.add(measured[0])  # a copy tells nothing new
                digests.append(measured[0])
                labels += groups[index : index + 1]
                scores.append(prediction.raw_score)
                highest.append(measured[1])
            step("")
    if errors:
        listed = "\n".join(errors[:10])
        raise DataError(
            f"{len(errors)} of {len(paths)} images cannot be used; replace them or take them out:\n"
            f"{listed}"
        )
    check_new_groups(stored.manifest, labels)
    with_maps = stored.manifest.calibration.map is not None
    maxima = np.array(highest, np.float64) if with_maps else None
    return GoodScores(
        np.array(scores, np.float64),
        maxima,
        digests=tuple(digests),
        left_out=len(paths) - len(scores),
        groups=numbered(labels) if labels else None,
    )


def _record(by: str, source: str, **counts: Any) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"by": by, "source": source, "created": now, **counts}


def calibrated_by(record: Mapping[str, Any]) -> dict[str, str]:
    """What `calibrate` has recorded, in words, by what it is of; empty where it was not called."""
    lines = {}
    if "by" in record:
        created = str(record.get("created", ""))[:10]
        words = [f"{created} by {record['by']}".replace("by by", "by"), str(record.get("source"))]
        counts = [f"{record['n_good']} good"] if "n_good" in record else []
        counts += [f"{record['n_defective']} defective"] if "n_defective" in record else []
        words += [f"{' and '.join(counts)} images"] if counts else []
        if "false_alarms" in record:
            words.append(f"{record['false_alarms']} false alarms, {record['misses']} misses")
        if "rejected" in record:
            words.append(f"{record['rejected']} good ones exceed it")
        if "device" in record:
            words.append(f"on {record['device']}")
        if record.get("left_out"):
            words.append(f"{record['left_out']} left out (learnt, or copies)")
        if isinstance(alone := record.get("good_only"), dict):
            words.append(
                f"the limit from good images alone, {alone['limit']:.6g}, has "
                f"{alone['false_alarms']} false alarms, {alone['misses']} misses"
            )
        if isinstance(low := record.get("too_low"), dict):
            words.append(
                f"the {record['by']} of all, at {low['limit']:.6g}, is too low: "
                f"{low['false_alarms']} false alarms, {low['misses']} misses"
            )
        lines["calibrated"] = "; ".join(words)
    if isinstance(day := record.get("another_day"), dict):
        lines["another day"] = (
            f"{day['rejected']} of {day['n_good']} good images of {day['source']} are rejected "
            f"({_per_cent(Estimate(day['rate'], day['low'], day['high']))})"
        )
    return lines


def _per_cent(estimate: Estimate) -> str:
    return (
        f"{estimate.value:.1%}, 95 % interval {100 * estimate.low:.1f} to "
        f"{100 * estimate.high:.1f} %"
    )
