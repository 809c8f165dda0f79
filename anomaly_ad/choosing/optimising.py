"""A model in INT8, compared with the same in f32, and kept only where that does no harm."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

from ..errors import DataError, OptionError
from ..evaluation.intervals import Estimate, auroc, wilson
from ..images import PathLike, TrainingImages, check_path, find_training_images
from ..images.exclusion import without
from ..images.groups import grouped
from ..images.labelled import GOOD
from ..inspection import probe
from ..methods import registry
from ..model import Plan, StoredModel
from ..runtime import INT8
from ..support import printable, say
from ..training import Shared
from ..training.quantised import check_installed
from ..training.steps import train
from .material import Material, find_material
from .merit import Scored, differences, merit
from .trying import check_writable, scored, tested

FASTER = 1.1  # times, at least
MARGIN = 0.02  # of the merit
_ROUNDS = 3  # of measuring the speed, by turns
_PROBED = 10  # images
_FEW = 20  # images of a kind


@dataclass(frozen=True)
class Figures:
    """What came of one of both.

    Parameters
    ----------
    precision : str
        "f32" or "int8".
    merit : float
        See `merit.merit`.
    auroc : Estimate
        Of the image scores; DeLong's interval of 95 %.
    found, n_defective, rejected, n_good : int
        Images above the limit, and all of them.
    stated_rate : float
        Share of good parts that the limit rejects at most, by calibration.
    image_ms : float or None
        Milliseconds from a file to its verdict; None where they could not be measured.
    model_mb : float
        Weights and graph.
    """

    precision: str
    merit: float
    auroc: Estimate
    found: int
    n_defective: int
    rejected: int
    n_good: int
    stated_rate: float
    image_ms: float | None
    model_mb: float

    @property
    def rejects_more(self) -> bool:
        """Whether more good images are rejected than its limit states, by more than chance."""
        return wilson(self.rejected / self.n_good, self.n_good).low > self.stated_rate

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of a table."""
        alarms = wilson(self.rejected / self.n_good, self.n_good)
        found = wilson(self.found / self.n_defective, self.n_defective)
        return (
            self.precision,
            f"{self.found} of {self.n_defective} ({_span(found)})",
            f"{self.rejected} of {self.n_good} ({_span(alarms)})",
            self.auroc.text(1, 3),
            f"{self.merit:.3f}",
            "-" if self.image_ms is None else f"{self.image_ms:.1f}",
            f"{self.model_mb:.1f}",
        )


@dataclass(frozen=True)
class Optimisation:
    """What INT8 would be worth, and whether it was kept. Intervals are of 95 %.

    Parameters
    ----------
    before, after : Figures
        In f32 and in INT8, both learnt from the same images and tested on the same others.
    worse : Estimate
        By how much the merit of f32 is larger, with its paired interval.
    margin : float
        Largest accepted upper end of that interval.
    is_rendered : bool
        Whether the defects are rendered ones.
    notes : tuple of str
        What was done, for people.
    saved : str
        The model directory; empty where it was not kept.
    """

    before: Figures
    after: Figures
    worse: Estimate
    margin: float
    is_rendered: bool
    notes: tuple[str, ...]
    saved: str = ""

    @property
    def speedup(self) -> float | None:
        """Times as fast from a file to its verdict; None where that could not be measured."""
        if self.before.image_ms is None or self.after.image_ms is None:
            return None
        return self.before.image_ms / self.after.image_ms

    @property
    def objections(self) -> list[str]:
        """Why it is not worth it; empty where it is."""
        out = []
        if self.speedup is None:
            out.append("its speed could not be measured on this machine")
        elif self.speedup < FASTER:
            out.append(f"it is {self.speedup:.2f} times as fast, and at least {FASTER} is asked")
        if self.worse.high > self.margin:
            out.append(
                f"its merit may be worse by {self.worse.high:.3f} (found {self.worse.text(1, 3)}), "
                f"and at most {self.margin:g} is accepted"
            )
        if self.after.rejects_more and not self.before.rejects_more:
            out.append("it rejects more good images than its limit states")
        return out

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return {**asdict(self), "speedup": self.speedup, "objections": self.objections}

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        head = ("", "found", "rejected", "image AUROC", "merit", "ms/image", "model MB")
        rows = [head, self.before.row, self.after.row]
        widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
        lines = [*self.notes]
        lines += [
            "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        lines.append(
            f"INT8 is worse by {self.worse.text(1, 3)} of the merit: the mean of the share found "
            "at the limit and of the partial AUROC up to 5 % false alarms."
        )
        if self.saved:
            lines.append(f"Kept: {self.speedup:.2f} times as fast. Saved the model in {self.saved}")
        else:
            lines.append(f"Not kept, nothing was saved: {'; '.join(self.objections)}.")
        return "\n".join(map(printable, lines))


def optimize(
    stored: StoredModel,
    images: PathLike | Iterable[PathLike],
    output: PathLike | None = None,
    *,
    labelled: PathLike | None = None,
    margin: float = MARGIN,
    seed: int = 0,
) -> Optimisation:
    """Make a model in INT8, and keep it only where it is faster and finds as much.

    The network that the features come from is quantised with the good images (post-training
    quantisation by NNCF); what scores stays in f32. It then learns from the quantised features, so
    its limits are taken as those of any model. Model and INT8 are compared on images that neither
    has learnt: both are made of the same part of the good images; what is saved is made of all.

    Parameters
    ----------
    stored : StoredModel
        A model of padim, patchcore, dfm or dfkde in f32.
    images : path or list of paths
        Good images, such as those that it was trained on: what it has excluded and its groups stay.
        Labelled images are looked for in the same folder.
    output : path, optional
        The model directory that is saved; None for the model's with "-int8" behind it.
    labelled, margin, seed
        See `AD.optimize`.

    Raises
    ------
    OptionError
        The model cannot be quantised so, or an argument cannot be used.
    DataError
        There are too few images, or groups of the training that are not known.
    MissingExtraError
        NNCF or TensorFlow is not installed.
    """
    plan = stored.manifest.plan
    _check(plan, margin)
    registry.check_extra("Quantisation")
    check_installed()
    directory = stored.directory
    target = check_path(
        directory.with_name(f"{directory.name}-{INT8}") if output is None else output, "output"
    )
    if os.path.realpath(target) == os.path.realpath(directory):
        raise OptionError("output is the model itself. Choose another directory.")
    check_writable(target)
    good = _as_trained(stored, find_training_images(images))
    material = find_material(images, labelled, seed=seed, whole=good)
    quick = replace(plan, precision=INT8)
    with tempfile.TemporaryDirectory(prefix="anomaly_ad-") as folder, Shared() as shared:
        models = {}
        for one in (plan, quick):
            say(f"{one.precision}: training")
            place = Path(folder, one.precision)
            models[one.precision] = train(one, material.training, place, epochs=None, shared=shared)
        found = _compared(models, material, margin, seed)
    if found.objections:
        return found
    say("INT8: training on all images")
    chosen = {"by": "optimize", **found.to_dict()}
    saved = train(quick, good, target, epochs=None, chosen=chosen)
    return replace(found, saved=str(saved.directory))


def _check(plan: Plan, margin: float) -> None:
    able = [name for name, preset in registry.PRESETS.items() if preset.is_statistical]
    if plan.method not in able:
        raise OptionError(
            f"{plan.method} is not quantised: its head is made of convolutions as well, or it "
            f"trains them. Methods that are: {', '.join(able)}."
        )
    if plan.precision != "f32":
        raise OptionError(f"The model is one in {plan.precision}; optimize takes one in f32.")
    if isinstance(margin, bool) or not isinstance(margin, Real) or not 0 <= margin <= 1:
        raise OptionError(f"margin is a share from 0 to 1. Received: {margin!r}.")


def _as_trained(stored: StoredModel, good: TrainingImages) -> TrainingImages:
    """Without those that were excluded, and in the same groups."""
    manifest = stored.manifest
    if manifest.excluded:
        good = without(good, [*manifest.excluded])
    labels = [label for one in manifest.training.get("sets", []) for label in one.get("groups", [])]
    if labels:
        places = (os.path.realpath(path) for _, path, _ in manifest.places)
        known = dict(zip(places, labels, strict=True))
        lacking = [path for path in good.paths if os.path.realpath(path) not in known]
        if lacking:
            raise DataError(
                f"The model was trained on groups of images, and the group of {lacking[0]} is not "
                f"known ({len(lacking)} such images). Give the images that it was trained on, "
                "where they were then."
            )
        good = grouped(good, [known[os.path.realpath(path)] for path in good.paths])
    return good


def _compared(
    models: dict[str, StoredModel], material: Material, margin: float, seed: int
) -> Optimisation:
    """Test both on the same images."""
    scores: dict[str, dict[int, float]] = {}
    errors: set[int] = set()
    for name, model in models.items():
        scores[name], failed = tested(model, material.tests, f"Testing {name}")
        errors |= failed.keys()
    places = [place for place in range(len(material.tests)) if place not in errors]
    kinds = [material.tests[place][1] == GOOD for place in places]
    if not any(kinds) or all(kinds):
        raise DataError(
            "A good and a defective image to test on are needed at least; none of one kind can be "
            "inspected."
        )
    files = [source.path for source, _ in material.tests if source.path is not None][:_PROBED]
    speed = _speed(models, files)
    results: dict[str, Scored] = {
        name: scored(model, scores[name], material.tests, places) for name, model in models.items()
    }
    before, after = (
        _figures(name, model, results[name], speed[name]) for name, model in models.items()
    )
    first, second = results.values()
    (worse,) = differences(first, [second], seed)
    notes = [*material.notes]
    if errors:
        notes.append(f"{len(errors)} images cannot be inspected and do not count.")
    if min(before.n_good, before.n_defective) < _FEW:
        notes.append(
            f"Warning: {before.n_good} good and {before.n_defective} defective images tell little; "
            f"take {_FEW} of each or more."
        )
    return Optimisation(before, after, worse, margin, material.is_rendered, tuple(notes))


def _figures(name: str, model: StoredModel, own: Scored, image_ms: float | None) -> Figures:
    graph = [entry["size"] for file, entry in model.files.items() if not file.endswith(".npz")]
    return Figures(
        name,
        merit(own),
        auroc(own.good, own.defective),
        own.found,
        len(own.defective),
        own.rejected,
        len(own.good),
        model.manifest.calibration.image.stated_rate,
        image_ms,
        sum(graph) / 1e6,
    )


def _speed(models: dict[str, StoredModel], files: Sequence[Path]) -> dict[str, float | None]:
    """Milliseconds from a file to its verdict, measured by turns; the best of some."""
    say("Speed")
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS):
        for name, model in models.items():
            speed = probe.measure(model.directory, files)
            if speed is not None:
                found[name].append(speed.image_ms)
    return {name: min(values, default=None) for name, values in found.items()}


def _span(estimate: Estimate) -> str:
    return f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} %"
