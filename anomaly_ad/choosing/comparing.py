"""Several methods on the same images: which are best, and which of these cannot be told apart."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import AnomalyADError, DataError, MissingExtraError, OptionError
from ..evaluation.intervals import Estimate, auroc, wilson
from ..evaluation.rates import A_LIST, at_rates
from ..evaluation.rendered import RenderedSource
from ..images import Framing, PathLike
from ..images.groups import Groups
from ..images.labelled import GOOD
from ..images.sources import Source
from ..inspection import probe
from ..methods import registry
from ..model import SAVE_PATH, Choice, StoredModel
from ..support import printable, say
from ..training import Shared, prepare, train
from .material import Material, find_material
from .merit import Scored, differences, merit
from .trying import check_budget, check_writable, choice_of, refuse_interrupted, scored, tested

BUDGET = 600.0  # seconds, where no methods are named
_IMAGES = 200  # that `Preset.minutes` is for
_LEAST = 0.25  # times the usual: no training is thought to be faster
_SAME_COST = 1.1  # times the time of the fastest: as fast
_ENOUGH, _ENOUGH_RENDERED = 0.8, 0.5  # of the defects; with fewer it is said what to do
_PROBED = 10  # images
_TOO_LONG = ", more than the budget leaves"


@dataclass(frozen=True)
class Compared:
    """What came of one method.

    Parameters
    ----------
    name : str
        The method.
    merit : float
        See `merit.merit`.
    behind : Estimate
        By how much the best has more, with its paired interval; of the best itself 0.
    is_equal : bool
        Whether it cannot be told from the best: the interval reaches 0.
    auroc : Estimate
        Of the image scores; DeLong's interval.
    found, n_defective, rejected, n_good : int
        Images above the limit, and all of them.
    stated_rate : float
        Share of good parts that the limit rejects at most, by calibration.
    rejects_more : bool
        Whether more good images are rejected than that, by more than chance.
    other_rate : str
        What a limit for another rate would do better; empty where none would.
    image_ms, start_s, peak_mb : float or None
        Milliseconds from a file to its verdict, seconds from an empty process to the first one, and
        the memory of inspection; None where they could not be measured.
    model_mb : float
        Size of the model directory.
    fit_s : float
        Seconds of the training. What methods share is in that of the first of them.
    has_map : bool
        Whether it says where.
    img_size : (int, int)
        (height, width) of its input.
    kinds : dict of str to int
        Defects found, kind by kind.
    above : tuple of bool
        Whether it rejects each image, in the order of `Comparison.images`.
    """

    name: str
    merit: float
    behind: Estimate
    is_equal: bool
    auroc: Estimate
    found: int
    n_defective: int
    rejected: int
    n_good: int
    stated_rate: float
    rejects_more: bool
    other_rate: str
    image_ms: float | None
    start_s: float | None
    peak_mb: float | None
    model_mb: float
    fit_s: float
    has_map: bool
    img_size: tuple[int, int]
    kinds: dict[str, int]
    above: tuple[bool, ...]

    @property
    def verdict(self) -> str:
        """What its limit does, in words."""
        return (
            f"finds {self.found} of {self.n_defective} and rejects {self.rejected} of {self.n_good}"
        )

    @property
    def row(self) -> tuple[str, ...]:
        """Its line of a table."""

        def text(value: float | None, digits: int = 0) -> str:
            return "-" if value is None else f"{value:.{digits}f}"

        behind = "best"
        if self.behind != _NOTHING:
            behind = f"{'=' if self.is_equal else ''} {self.behind.text(1, 3)}".strip()
        return (
            self.name,
            f"{self.found} of {self.n_defective}",
            f"{self.rejected} of {self.n_good}",
            self.auroc.text(1, 3),
            f"{self.merit:.3f}",
            behind,
            text(self.image_ms, 1),
            f"{self.model_mb:.1f}",
            text(self.peak_mb),
            text(self.fit_s),
        )


HEAD = (
    "method",
    "found",
    "rejected",
    "image AUROC",
    "merit",
    "behind the best",
    "ms/image",
    "model MB",
    "memory MB",
    "fit s",
)
_NOTHING = Estimate(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Comparison:
    """Methods that were compared on the same images, the best first. Intervals are of 95 %.

    Parameters
    ----------
    source : str
        Where the images are from.
    is_rendered : bool
        Whether the defects are rendered ones.
    n_training : int
        Images that were learnt from.
    images : tuple of (str, str)
        Those that were tested on: path, and kind, "good" or that of the defect.
    methods : tuple of Compared
        The best first.
    recommended : str
        The cheapest of those that cannot be told from the best.
    left_out : dict of str to str
        Methods that were not compared, and why.
    notes : tuple of str
        What was done, and what the figures cannot tell.
    advice : tuple of str
        What to do where no method is good.
    n_errors : int
        Images that could not be inspected.
    saved : str
        The model directory, where it was saved.
    """

    source: str
    is_rendered: bool
    n_training: int
    images: tuple[tuple[str, str], ...]
    methods: tuple[Compared, ...]
    recommended: str
    left_out: dict[str, str]
    notes: tuple[str, ...]
    advice: tuple[str, ...]
    n_errors: int = 0
    saved: str = ""

    @property
    def best(self) -> Compared:
        """The recommended one."""
        return next(each for each in self.methods if each.name == self.recommended)

    @property
    def equals(self) -> list[Compared]:
        """Those that cannot be told from the best, it included."""
        return [each for each in self.methods if each.is_equal]

    @property
    def left_out_lines(self) -> list[str]:
        """Which methods were not compared, and why; those that take too long in one line."""
        lines = [
            f"Left out: {name}: {why}"
            for name, why in self.left_out.items()
            if not why.endswith(_TOO_LONG)
        ]
        too_long = [
            f"{name} ({why.removesuffix(_TOO_LONG)})"
            for name, why in self.left_out.items()
            if why.endswith(_TOO_LONG)
        ]
        if too_long:
            lines.append(
                f"Left out, since they take longer than the budget: {', '.join(too_long)}."
            )
        return lines

    @property
    def recommendation(self) -> str:
        """Which, and why, in one line."""
        chosen, equals = self.best, self.equals
        why = "the best"
        if len(equals) > 1:
            others = [each.name for each in equals if each is not chosen]
            cheapest = "the cheapest of"
            if any(each.rejects_more for each in equals) and not chosen.rejects_more:
                cheapest = "the cheapest that keeps its false alarm rate, among"
            why = (
                f"{cheapest} {len(equals)} that cannot be told apart on these images (also: "
                f"{', '.join(others)})"
            )
        elif len(self.methods) == 1:
            why = "the only one that was compared"
        cost = "" if chosen.image_ms is None else f", {chosen.image_ms:.0f} ms per image"
        where = ""
        if not chosen.has_map:
            where = "; it says whether, not where"
            mapped = [each for each in equals if each.has_map]
            if mapped:
                fastest = min(mapped, key=lambda each: each.image_ms or math.inf)
                where += f" ({fastest.name} is the cheapest of them that does)"
        return f"Recommended: {chosen.name}, {why}: {chosen.verdict}{cost}{where}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return asdict(self)

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        rows = [HEAD, *(each.row for each in self.methods)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
        lines = [*self.notes]
        lines += [
            "  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        lines.append(
            "merit: mean of the share found at the limit and of the partial AUROC up to 5 % false "
            "alarms. In brackets: 95 % intervals; =: cannot be told from the best."
        )
        lines += self.left_out_lines
        lines += self.advice
        if self.saved:
            lines.append(f"Saved the model in {self.saved}")
        return "\n".join(map(printable, [*lines, self.recommendation]))


def compare(
    path: PathLike | Iterable[PathLike],
    *,
    detectors: Sequence[str] | str | None = None,
    budget: float | None = None,
    labelled: PathLike | None = None,
    groups: Groups | None = None,
    save: bool = False,
    save_path: PathLike = SAVE_PATH,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    seen: Callable[[list[tuple[Source, str]], Framing], object] | None = None,
) -> Comparison:
    """Train several methods on the same images and say which are best.

    Parameters
    ----------
    path, detectors, budget, labelled, groups, save, save_path, name
        See `AD.compare`; `budget` is in seconds.
    options : mapping, optional
        Options of `AD` for all methods.
    seen : callable, optional
        Gets the images that were tested on, in the order of `Comparison.images`, and what the
        recommended method takes of them.

    Raises
    ------
    DataError, PathError
        There is too little to compare on, or no method can learn from these images.
    OptionError
        An argument cannot be used.
    """
    began = time.perf_counter()
    given = {key: value for key, value in (options or {}).items() if value is not None}
    names = _names(detectors)
    check_budget(budget)
    if budget is None:
        budget = BUDGET if detectors is None else math.inf
    registry.check_extra("Comparing methods")
    # What cannot be used, or saved, is said before the work.
    target = choice_of(names[0], given, save_path, name).directory
    if save:
        check_writable(target)
    seed = int(given.get("seed", 0))
    material = find_material(path, labelled, groups=groups, seed=seed)
    run = _Run(material, given, seed)
    with tempfile.TemporaryDirectory(prefix="anomaly_ad-") as folder:
        for together in _batches(run, names, Path(folder)):
            some = _affordable(run, together, budget, began)
            if some:
                _learn(run, some)
        source = str(path) if isinstance(path, (str, os.PathLike)) else A_LIST
        found, places = _conclude(run, source)
        if seen is not None:
            framing = run.done[found.recommended].stored.manifest.plan.framing
            seen([run.material.tests[place] for place in places], framing)
        if save:
            try:
                saved = _save(run, found, given, save_path, name)
            except AnomalyADError:
                say(str(found))  # what is known is not lost
                raise
            found = replace(found, saved=str(saved.directory))
    return found


@dataclass
class _Run:
    """What is known so far."""

    material: Material
    options: Mapping[str, Any]
    seed: int
    done: dict[str, _Done] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)  # images to test on that cannot be read
    spent: float = 0.0  # minutes, and what they were thought to be
    thought: float = 0.0

    def usual_minutes(self, name: str) -> float:
        """How long a method takes for so many images, by its preset."""
        return registry.preset(name).minutes * max(
            len(self.material.training.paths) / _IMAGES, _LEAST
        )

    def minutes(self, name: str) -> float:
        """How long a method will take, by what those before took."""
        factor = max(self.spent / self.thought, _LEAST) if self.thought else 1.0
        return self.usual_minutes(name) * factor


@dataclass(frozen=True, eq=False)
class _Done:
    """A trained method and what it says of each image to test on, by its place."""

    stored: StoredModel
    scores: dict[int, float]
    seconds: float


@dataclass(frozen=True, eq=False)
class _Due:
    """A method that is about to be trained."""

    name: str
    choice: Choice
    work: Any


def _names(detectors: Sequence[str] | str | None) -> list[str]:
    """The cheapest first."""
    if detectors is None:
        chosen = [name for name, preset in registry.PRESETS.items() if preset.is_offered]
    else:
        chosen = detectors.split(",") if isinstance(detectors, str) else [*detectors]
        chosen = [*dict.fromkeys(each.strip() for each in chosen)]
    if not chosen:
        raise OptionError(f"detectors names no method. Valid: {', '.join(registry.PRESETS)}.")
    return sorted(chosen, key=lambda each: registry.preset(each).minutes)


def _batches(run: _Run, names: Sequence[str], folder: Path) -> Iterable[list[_Due]]:
    """Methods to train, those together that take the same of an image and learn in one pass."""
    due: dict[Any, list[_Due]] = defaultdict(list)
    for name in names:
        try:
            choice = choice_of(name, run.options, folder, name)
            work = prepare(choice, run.material.training, None)
        except MissingExtraError:
            raise
        except AnomalyADError as error:
            run.left_out[name] = str(error)
            continue
        is_alone = not registry.preset(name).is_statistical
        due[name if is_alone else work.plan.framing].append(_Due(name, choice, work))
    return due.values()


def _affordable(run: _Run, due: list[_Due], limit: float, began: float) -> list[_Due]:
    """Those that can be trained in the time left; the first method always is."""
    left = limit - (time.perf_counter() - began)
    out: list[_Due] = []
    for each in due:
        minutes = run.minutes(each.name)
        if 60 * minutes <= left or not (run.done or out):
            out.append(each)
            left -= 60 * minutes
            continue
        run.left_out[each.name] = f"about {max(minutes, 1):.0f} min{_TOO_LONG}"
    return out


def _learn(run: _Run, due: list[_Due]) -> None:
    """Train these and score the images to test on."""
    from ..training.steps import build

    together = []
    start: float | None = time.perf_counter()  # what is shared counts with the first
    for each in [*due] if len(due) > 1 else ():
        try:
            plan = each.work.plan
            together.append((plan, build(plan, each.choice.network)))
        except MissingExtraError:
            raise
        except AnomalyADError as error:
            run.left_out[each.name] = str(error)
            due.remove(each)
    with Shared(together) as shared:
        for each in due:
            say(f"{each.name}: training")
            begun, start = start or time.perf_counter(), None
            try:
                trained = train(each.choice, run.material.training, each.work, shared=shared)
                refuse_interrupted(trained.stored)
                seconds = time.perf_counter() - begun
                scores, errors = tested(trained.stored, run.material.tests, f"Testing {each.name}")
                run.errors |= errors
            except MissingExtraError:
                raise
            except AnomalyADError as error:
                run.left_out[each.name] = str(error)
                continue
            run.done[each.name] = _Done(trained.stored, scores, seconds)
            run.thought += run.usual_minutes(each.name)
            run.spent += (time.perf_counter() - begun) / 60


def _conclude(run: _Run, source: str) -> tuple[Comparison, list[int]]:
    """Who is best, and who cannot be told from it; and the places of the images that count."""
    if not run.done:
        reasons = "\n  ".join(f"{name}: {why}" for name, why in run.left_out.items())
        raise DataError(f"No method can learn from these images:\n  {reasons}")
    kinds = [kind for _, kind in run.material.tests]
    usable = [
        place
        for place in range(len(kinds))
        if all(place in done.scores for done in run.done.values())
    ]
    good = [place for place in usable if kinds[place] == GOOD]
    defective = [place for place in usable if kinds[place] != GOOD]
    if not good or not defective:
        first = next(iter(run.errors.values()), "")
        raise DataError(
            f"{len(good)} good and {len(defective)} defective images could be inspected; one of "
            f"each is needed at least, and 20 or more tell something. {first}"
        )
    scores = {
        name: scored(done.stored, done.scores, run.material.tests, usable)
        for name, done in run.done.items()
    }
    order = sorted(scores, key=lambda name: -merit(scores[name]))  # of equals the cheapest is first
    best, *others = order
    gaps = differences(scores[best], [scores[name] for name in others], run.seed)
    methods = []
    for name, behind in zip(order, [_NOTHING, *gaps], strict=True):
        methods.append(_compared(run, name, scores[name], behind, usable, kinds))
    notes = [*run.material.notes]
    unfit = [n for n in run.errors if isinstance(run.material.tests[n][0], RenderedSource)]
    if unfit:
        notes.append(f"{len(unfit)} rendered defects do not fit on their images and do not count.")
    broken = [why for n, why in run.errors.items() if n not in unfit]
    if broken:
        notes.append(
            f"{len(broken)} images could not be inspected and do not count. The first: {broken[0]}"
        )
    if all(each.image_ms is None for each in methods):
        notes.append("The speed could not be measured on this machine; the quickest training won.")
    if min(len(good), len(defective)) < 20:
        notes.append(
            f"Warning: {len(good)} good and {len(defective)} defective images tell little; take "
            "20 of each or more."
        )
    recommended = _cheapest(methods)
    found = Comparison(
        source=source,
        is_rendered=run.material.is_rendered,
        n_training=len(run.material.training.paths),
        images=tuple((run.material.tests[place][0].name, kinds[place]) for place in usable),
        methods=tuple(methods),
        recommended=recommended.name,
        left_out=run.left_out,
        notes=tuple(notes),
        advice=tuple(_advice(recommended, methods, run)),
        n_errors=len(broken),
    )
    return found, usable


def _compared(
    run: _Run,
    name: str,
    own: Scored,
    behind: Estimate,
    usable: Sequence[int],
    kinds: Sequence[str],
) -> Compared:
    done = run.done[name]
    manifest = done.stored.manifest
    n_good, n_defective = len(own.good), len(own.defective)
    stated = manifest.calibration.image.stated_rate
    above = tuple(bool(done.scores[place] > own.limit) for place in usable)
    found = Counter(
        kinds[place]
        for place, is_above in zip(usable, above, strict=True)
        if is_above and kinds[place] != GOOD
    )
    tests = [run.material.tests[place][0] for place in usable]
    files = [source.path for source in tests if source.path is not None]
    say(f"{name}: speed and memory")
    speed = probe.measure(done.stored.directory, files[:_PROBED])
    return Compared(
        name=name,
        merit=merit(own),
        behind=behind,
        is_equal=behind.low <= 0,
        auroc=auroc(own.good, own.defective),
        found=own.found,
        n_defective=n_defective,
        rejected=own.rejected,
        n_good=n_good,
        stated_rate=stated,
        rejects_more=wilson(own.rejected / n_good, n_good).low > stated,
        other_rate=_other_rate(done.stored, own),
        image_ms=None if speed is None else speed.image_ms,
        start_s=None if speed is None else speed.start_s,
        peak_mb=None if speed is None else speed.peak_mb,
        model_mb=sum(entry["size"] for entry in done.stored.files.values()) / 1e6,
        fit_s=done.seconds,
        has_map=manifest.calibration.map is not None,
        img_size=manifest.plan.framing.size,
        kinds=dict(sorted(found.items())),
        above=above,
    )


def _other_rate(stored: StoredModel, own: Scored) -> str:
    rows = at_rates(stored, own.good, own.defective)
    if not rows:
        return ""
    best = max(rows, key=lambda row: (row.gain, -row.rate))
    if best.found <= own.found:
        return ""
    return (
        f"with false_alarm_rate={best.rate:g} it would find {best.found} of {best.n_defective} and "
        f"reject {best.rejected} of {best.n_good}"
    )


def _cheapest(methods: Sequence[Compared]) -> Compared:
    """The fastest of those that cannot be told from the best; of equally fast ones one with maps.

    One that rejects more good images than it states is not taken where there is another.
    """
    equals = [each for each in methods if each.is_equal]
    equals = [each for each in equals if not each.rejects_more] or equals
    least = min(each.image_ms or math.inf for each in equals)
    fast = [each for each in equals if (each.image_ms or math.inf) <= _SAME_COST * least]
    return min(fast, key=lambda each: (not each.has_map, each.fit_s))


def _advice(chosen: Compared, methods: Sequence[Compared], run: _Run) -> Iterable[str]:
    if chosen.rejects_more:
        yield (
            f"{chosen.name} rejects {chosen.rejected} of {chosen.n_good} good images, more than "
            f"the {chosen.stated_rate:.1%} that it states: these differ from the images that were "
            "learnt from. Add some of them to the training, or look at light and pose."
        )
    enough = _ENOUGH_RENDERED if run.material.is_rendered else _ENOUGH
    if chosen.found >= enough * chosen.n_defective:
        return
    best = max(methods, key=lambda each: each.found)
    if best.found >= enough * best.n_defective:
        yield (
            f"{best.name} finds more at its limit, {best.found} of {best.n_defective}; the images "
            "are too few to tell whether that is more than chance."
        )
        return
    yield (
        f"No method is good: {best.name} finds most at its limit, {best.found} of "
        f"{best.n_defective}. What helps: a region (roi) that leaves out what may vary; "
        'tiles="auto" where defects are small; align where parts lie differently; more '
        f"good images than {len(run.material.training.paths)}; better light."
    )
    if chosen.other_rate:
        yield f"{chosen.name}: {chosen.other_rate}."


def _save(
    run: _Run,
    found: Comparison,
    given: Mapping[str, Any],
    save_path: PathLike,
    name: str | None,
) -> StoredModel:
    """Train the recommended method on all good images and save it, with the reason."""
    choice = choice_of(found.recommended, given, save_path, name)
    work = prepare(choice, run.material.whole, None)
    reason = {
        "by": "compare",
        "why": found.recommendation,
        "methods": {
            each.name: {"merit": each.merit, "found": each.found, "rejected": each.rejected}
            for each in found.methods
        },
        "n_defective": found.best.n_defective,
        "n_good": found.best.n_good,
        "is_rendered": found.is_rendered,
    }
    say(f"Training {found.recommended} on all {len(run.material.whole.paths)} good images")
    return train(choice, run.material.whole, work, chosen=reason).stored
