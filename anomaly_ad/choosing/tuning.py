"""The options of a method, searched on the user's images.

Half of the images to test on, good ones and each kind of defect, is never seen by the search; what
is reported comes from that half alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..errors import (
    AnomalyADError,
    DataError,
    MissingExtraError,
    OptionError,
    OutputError,
    missing_extra,
)
from ..evaluation.intervals import Estimate
from ..evaluation.rendered import RenderedSource
from ..images import PathLike, check_path, survey
from ..images.groups import Groups
from ..images.labelled import GOOD
from ..inspection import probe
from ..methods import registry
from ..model import SAVE_PATH, Plan, StoredModel
from ..support import printable, say
from ..training import Shared, prepare, train
from .material import Material, find_material
from .merit import Scored, differences, merit
from .trying import check_budget, check_writable, choice_of, refuse_interrupted, scored, tested

TRIALS = 50
OBJECTIVES = ("quality", "latency", "both")
_SIDES = (192, 256, 320, 384)  # of square inputs; others have as many pixels
_PART = 1 / 3  # of images and epochs that a trial of a method trained by gradient begins with
_LEAST_PART = 30  # images
_SLACK = 0.01  # of merit that a faster model may lose, where it is searched for latency
_WARM_UP = 5  # trials before any is pruned
_MOST_FAILED = 20  # trials in a row
_FASTER = 0.9  # times the default's time: less is faster
_FEW = 20  # images of a kind; figures of fewer tell little
_DEFAULT = "is_default"


@dataclass(frozen=True)
class Tuned:
    """Figures of options on the images that the search has not seen.

    Parameters
    ----------
    options : dict
        Those that were searched.
    merit : float
        See `merit.merit`.
    found, n_defective, rejected, n_good : int
        Images above the limit, and all of them.
    image_ms : float or None
        Milliseconds from a file to its verdict; None where that could not be measured.
    """

    options: dict[str, Any]
    merit: float
    found: int
    n_defective: int
    rejected: int
    n_good: int
    image_ms: float | None

    def __str__(self) -> str:
        speed = "" if self.image_ms is None else f", {self.image_ms:.1f} ms per image"
        return (
            f"merit {self.merit:.3f}, finds {self.found} of {self.n_defective}, rejects "
            f"{self.rejected} of {self.n_good}{speed}"
        )


@dataclass(frozen=True)
class Tuning:
    """What came of a search.

    Parameters
    ----------
    method, objective : str
        What was tuned, and for what.
    storage : str
        The study, which a further call goes on with.
    n_trials, n_pruned, n_failed : int
        Trials that were finished, those of them that ended early, and those that could not be made.
    default, best : Tuned
        On the half that the search has not seen.
    gain : Estimate
        Of the merit, best less default, on the same images; the paired 95 % interval.
    is_better : bool
        Whether the best is to be taken: by more than chance.
    front : tuple of dict
        For "both": merit (on the searched half), milliseconds and options of the trials that none
        beats in both.
    notes : tuple of str
        What was done, and what the figures cannot tell.
    saved : str
        The model directory, where it was saved.
    """

    method: str
    objective: str
    storage: str
    n_trials: int
    n_pruned: int
    n_failed: int
    default: Tuned
    best: Tuned
    gain: Estimate
    is_better: bool
    front: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    saved: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The options to take: none where the default is kept."""
        return self.best.options if self.is_better else {}

    @property
    def recommendation(self) -> str:
        """What to take, and why, in one line."""
        gain = self.gain.text(1, 3)
        if not self.is_better and not self.best.options:
            return f"Recommended: keep the default of {self.method}: no trial was better"
        if not self.is_better:
            why = "is within noise" if self.gain.high >= 0 else "is a loss"
            if self.objective == "latency":
                why = "and the time do not show that it is faster and as good"
            return f"Recommended: keep the default of {self.method}: gain {gain} {why}"
        words = " ".join(f"{name}={json.dumps(value)}" for name, value in self.options.items())
        speed = ""
        if self.objective == "latency" and self.best.image_ms and self.default.image_ms:
            speed = f", {self.best.image_ms:.1f} ms instead of {self.default.image_ms:.1f}"
        return f"Recommended: {self.method} {words}: gain {gain}{speed}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which JSON can hold."""
        return asdict(self)

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        lines = [
            *self.notes,
            f"{self.n_trials} trials, {self.n_pruned} of them ended early"
            + (f"; {self.n_failed} could not be made" if self.n_failed else "")
            + f". Study: {self.storage}",
            "On images that the search has not seen:",
            f"  default  {self.default}",
            f"  best     {self.best}",
            f"  gain     {self.gain.text(1, 3)} (in brackets: 95 % interval, on the same images)",
        ]
        if self.front:
            lines.append("None is both better and faster than one of these (searched half):")
            for each in self.front:
                words = ", ".join(f"{name}={value}" for name, value in each["options"].items())
                lines.append(f"  merit {each['merit']:.3f}  {each['image_ms']:6.1f} ms  {words}")
        if self.saved:
            lines.append(f"Saved the model in {self.saved}")
        return "\n".join(map(printable, [*lines, self.recommendation]))


def tune(
    path: PathLike | Iterable[PathLike],
    method: str,
    *,
    trials: int = TRIALS,
    budget: float | None = None,
    objective: str = "quality",
    labelled: PathLike | None = None,
    groups: Groups | None = None,
    storage: PathLike | None = None,
    save: bool = False,
    save_path: PathLike = SAVE_PATH,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Tuning:
    """Search the options of a method.

    Parameters and errors are those of `AD.tune`.
    """
    optuna = load_optuna()
    given = {key: value for key, value in (options or {}).items() if value is not None}
    _check(method, trials, budget, objective)
    registry.check_extra("Tuning")
    target = choice_of(method, given, save_path, name)
    seed = target.plan.seed
    material = find_material(path, labelled, groups=groups, seed=seed)
    search, unseen = halves(material, seed)
    file = check_path(
        target.directory.with_name(f"{target.directory.name}-tuning.db")
        if storage is None
        else storage,
        "storage",
    )
    check_writable(file)
    if save:
        check_writable(target.directory)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(f"{file}.lock", timeout=0))
        except Timeout:
            raise OutputError(
                f"Another process works on the study {file}. Wait for it, or name another storage."
            ) from None
        except (OSError, NotImplementedError) as error:
            raise OutputError(f"{file}.lock cannot be written ({error}).") from error
        space = _Space.of(method, given, material)
        study = _study(optuna, file, method, objective, given, material, unseen)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anomaly_ad-")))
        shared = stack.enter_context(Shared())
        run = _Run(optuna, study, space, search, objective, seed, folder, shared)
        run.search(trials, math.inf if budget is None else float(budget))
        found = _conclude(run, unseen, material, str(file))
        if save:
            try:
                saved = _save(run, found, material, save_path, name)
            except AnomalyADError:
                say(str(found))  # what is known is not lost
                raise
            found = replace(found, saved=str(saved.directory))
    return found


def load_optuna() -> Any:
    """The package behind the search, with its notes on each trial silenced."""
    try:
        import optuna
    except ImportError as error:
        raise missing_extra("Tuning", "tune", "optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _check(method: str, trials: int, budget: float | None, objective: str) -> None:
    preset = registry.preset(method)
    if not any(option.is_searched for option in preset.options):
        raise OptionError(f"{method} has no options that can be searched.")
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise OptionError(f"trials is a whole number from 1. Received: {trials!r}.")
    check_budget(budget)
    if objective not in OBJECTIVES:
        raise OptionError(f"objective is one of {', '.join(OBJECTIVES)}. Received: {objective!r}.")


def halves(material: Material, seed: int) -> tuple[Material, Material]:
    """The images to test on in two halves, of the good ones and of each kind of defect.

    Defects that were rendered on a good image go with it.
    """
    random = np.random.default_rng([seed, 0x5EED])
    by_kind: dict[str, list[int]] = defaultdict(list)
    for place, (_, kind) in enumerate(material.tests):
        by_kind[kind].append(place)
    first: set[int] = set()
    if material.is_rendered:
        files = sorted({source.name for source, kind in material.tests if kind == GOOD})
        chosen = {files[n] for n in random.permutation(len(files))[: (len(files) + 1) // 2]}
        first = {n for n, (source, _) in enumerate(material.tests) if source.name in chosen}
    else:
        extra = 0  # of kinds with an odd number of images every other one has one more
        for kind in sorted(by_kind):
            places = random.permutation(by_kind[kind])
            count = (len(places) + extra % 2) // 2
            extra += len(places) % 2
            first |= set(places[:count].tolist())
    second = [n for n in range(len(material.tests)) if n not in first]
    parts = material.part(sorted(first)), material.part(second)
    for part in parts:
        kinds = [kind for _, kind in part.tests]
        if not kinds.count(GOOD) or kinds.count(GOOD) == len(kinds):
            raise DataError(
                "There are too few images to tune on: half of those that are tested on is kept "
                "from the search, and each half needs good and defective ones. Take more "
                "photographs, 20 of each kind or more."
            )
    return parts


# ------------------------------------------------------------------------------------- search


@dataclass(frozen=True, eq=False)
class _Space:
    """What is searched: options of the method, and the size of its input."""

    method: str
    given: Mapping[str, Any]
    sizes: tuple[tuple[int, int], ...]
    default_size: tuple[int, int]

    @classmethod
    def of(cls, method: str, given: Mapping[str, Any], material: Material) -> _Space:
        """All that the user has not given."""
        preset = registry.preset(method)
        plan: Plan = prepare(choice_of(method, given, "Models", None), material.training, None).plan
        default = plan.framing.size
        sizes = {default}
        fixed = {"img_size", "tiles", "tile_size"} & given.keys()
        if preset.largest_area is not None and not fixed:
            found = survey(material.training.paths).sizes
            seen = float(np.median([h * w for h, w in found])) if found else 0.0
            for side in _SIDES:
                if side**2 <= max(seen, math.prod(default)):
                    scale = side / math.sqrt(math.prod(default))  # of the same shape
                    height, width = (32 * max(round(n * scale / 32), 1) for n in default)
                    sizes.add((height, width))
        return cls(method, given, tuple(sorted(sizes)), default)

    @property
    def options(self) -> list[Any]:
        """Options of the method that are searched."""
        own = registry.preset(self.method).options
        return [each for each in own if each.is_searched and each.name not in self.given]

    def default(self) -> dict[str, Any]:
        """The default, as it is suggested."""
        values = {each.name: each.as_suggested(each.default) for each in self.options}
        if len(self.sizes) > 1:
            values["img_size"] = _text(self.default_size)
        return values

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Options to try."""
        values = {each.name: each.suggest(trial) for each in self.options}
        if len(self.sizes) > 1:
            text = trial.suggest_categorical("img_size", [_text(size) for size in self.sizes])
            values["img_size"] = tuple(map(int, text.split("x")))
        return values


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _study(
    optuna: Any,
    file: Path,
    method: str,
    objective: str,
    given: Mapping[str, Any],
    material: Material,
    unseen: Material,
) -> Any:
    """The study in the file; a trial that was cut off there is to be made again."""
    about = {
        "method": method,
        "objective": objective,
        "given": json.dumps(given, sort_keys=True, default=str),
        "images": _images(material),
        "kept": _kept(unseen),
    }
    directions = ["maximize", "minimize"] if objective == "both" else ["maximize"]
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{file.absolute()}")
        study = optuna.create_study(
            storage=storage, study_name="tune", load_if_exists=True, directions=directions
        )
    except Exception as error:  # of SQLAlchemy or Optuna: the way out is the same
        raise OutputError(
            f"{file} cannot be used as a study ({error}). Name another storage."
        ) from error
    known = study.user_attrs
    odd = [key for key, value in about.items() if known.get(key, value) != value]
    if odd:
        raise OptionError(
            f"The study {file} is of another search ({', '.join(odd)} differ). Name another "
            "storage, or remove it."
        )
    for key, value in about.items():
        if key not in known:
            study.set_user_attr(key, value)
    running = optuna.trial.TrialState.RUNNING
    for trial in study.get_trials(deepcopy=False, states=(running,)):
        # Nobody else works on the study, so this one was cut off.
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        _again(study, trial)
    return study


def _again(study: Any, trial: Any) -> None:
    """Make a trial that was cut off again, with what it was to have and what it had."""
    attributes = {"again": trial.number}
    if _is_default(trial):
        attributes[_DEFAULT] = True
    fixed = trial.system_attrs.get("fixed_params", {})
    study.enqueue_trial({**fixed, **trial.params}, user_attrs=attributes)


def _is_default(trial: Any) -> bool:
    return bool(trial.user_attrs.get(_DEFAULT))


def _images(material: Material) -> str:
    """A hash of which images there are: names, sizes and when they were changed."""
    digest = hashlib.sha256()
    files = [*material.whole.paths, *(source.path for source, _ in material.tests)]
    for file in filter(None, files):
        known = file.stat()
        digest.update(os.fsencode(f"{file.name} {known.st_size} {known.st_mtime_ns}\n"))
    return digest.hexdigest()


def _kept(unseen: Material) -> str:
    """A hash of the images that are kept from the search, and of their kinds."""
    names = [f"{source.relative} {kind}" for source, kind in unseen.tests]
    return hashlib.sha256(os.fsencode("\n".join(names))).hexdigest()


@dataclass(eq=False)
class _Run:
    """A search under way."""

    optuna: Any
    study: Any
    space: _Space
    material: Material
    objective: str
    seed: int
    folder: Path
    shared: Shared
    unfit: set[int] = field(default_factory=set)

    def trials(self, *states: str) -> list[Any]:
        """Trials in some states."""
        known = self.optuna.trial.TrialState
        wanted = tuple(getattr(known, state) for state in states)
        return list(self.study.get_trials(deepcopy=False, states=wanted))

    def search(self, count: int, budget: float) -> None:
        """Make trials until there are so many, or the time is over; Ctrl-C ends it as well."""
        began = time.perf_counter()
        states = self.optuna.trial.TrialState
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(self.space.default(), user_attrs={_DEFAULT: True})
        in_a_row = 0
        while (done := len(self.trials("COMPLETE", "PRUNED"))) < count:
            if done and time.perf_counter() - began >= budget:
                say(f"The time is over after {done} trials.")
                return
            number = len(self.study.get_trials(deepcopy=False))
            # Of its own for each trial, so that a search that is gone on with goes the same way.
            self.study.sampler = self.optuna.samplers.TPESampler(seed=self.seed + number)
            trial = self.study.ask()
            try:
                values = self._tried(trial)
            except self.optuna.TrialPruned:
                self.study.tell(trial, state=states.PRUNED)
            except (MissingExtraError, OutputError):
                self.study.tell(trial, state=states.FAIL)
                raise
            except AnomalyADError as error:
                trial.set_user_attr("error", str(error))
                self.study.tell(trial, state=states.FAIL)
                in_a_row += 1
                if in_a_row == _MOST_FAILED or not self.trials("COMPLETE"):
                    raise
                continue
            except KeyboardInterrupt:
                self.study.tell(trial, state=states.FAIL)
                _again(self.study, self.study.get_trials(deepcopy=False)[trial.number])
                if not self.trials("COMPLETE"):
                    raise
                say(f"Interrupted: {done} trials are kept, and tuning again goes on with them.")
                return
            else:
                self.study.tell(trial, values)
            in_a_row = 0
            self._tell(trial, done + 1, count)

    def _tell(self, trial: Any, done: int, count: int) -> None:
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        what = "ended early"
        if frozen.state == self.optuna.trial.TrialState.COMPLETE:
            merits = [each.user_attrs["merit"] for each in self.trials("COMPLETE")]
            what = f"merit {frozen.user_attrs['merit']:.3f}, best {max(merits):.3f}"
        say(f"Trial {done} of {count}: {what}")

    def _tried(self, trial: Any) -> float | list[float]:
        """Train with options, and what is searched for."""
        values = self.space.suggest(trial)
        options = {**self.space.given, **values}
        preset = registry.preset(self.space.method)
        trial.set_user_attr("options", values)
        if preset.epochs is not None and self.objective != "both":
            self._begin(trial, options, preset.epochs)
        stored, own = self._trained(options)
        quality = merit(own)
        trial.set_user_attr("merit", quality)
        if self.objective == "quality":
            return quality
        speed = probe.measure(stored.directory, self._files())
        if speed is None:
            raise OptionError("The speed of a model could not be measured on this machine.")
        trial.set_user_attr("image_ms", speed.image_ms)
        if self.objective == "both":
            return [quality, speed.image_ms]
        floor = self._default_merit(quality) - _SLACK
        # What is worse than the default counts as slower, the more the worse it is.
        return -speed.image_ms * (1 + 100 * max(floor - quality, 0.0))

    def _default_merit(self, own: float) -> float:
        """That of the trial with the default's options; its own until that is made."""
        made = [each for each in self.trials("COMPLETE") if _is_default(each)]
        return float(made[0].user_attrs["merit"]) if made else own

    def _begin(self, trial: Any, options: Mapping[str, Any], epochs: int) -> None:
        """Train on a part first, and end a trial that is worse there than half of those before."""
        paths = self.material.training.paths
        count = max(_LEAST_PART, round(_PART * len(paths)))
        if count >= len(paths):
            return
        places = np.linspace(0, len(paths) - 1, count).round().astype(int).tolist()
        groups = self.material.training.groups
        part = replace(
            self.material.training,
            paths=tuple(paths[place] for place in places),
            groups=tuple(groups[place] for place in places) if groups else (),
        )
        own = self._trained(options, part, max(round(_PART * epochs), 1))[1]
        value = merit(own)
        before = [
            each.intermediate_values[0]
            for each in self.trials("COMPLETE", "PRUNED")
            if 0 in each.intermediate_values
        ]
        trial.report(value, 0)
        if len(before) >= _WARM_UP and value < float(np.median(before)):
            raise self.optuna.TrialPruned

    def _trained(
        self, options: Mapping[str, Any], part: Any = None, epochs: int | None = None
    ) -> tuple[StoredModel, Scored]:
        stored = trained(
            self.space.method,
            options,
            self.folder,
            part or self.material.training,
            self.shared,
            epochs,
        )
        scores, errors = tested(stored, self.material.tests, "Testing")
        tests = self.material.tests
        broken = [why for n, why in errors.items() if not isinstance(tests[n][0], RenderedSource)]
        if broken:
            raise DataError(
                f"{len(broken)} images to test on cannot be inspected. Take them out. The first: "
                f"{broken[0]}"
            )
        # A rendered defect that does not fit on its image never counts, whatever the options.
        self.unfit |= set(errors)
        usable = [place for place in range(len(tests)) if place not in self.unfit]
        return stored, scored(stored, scores, tests, usable)

    def _files(self) -> list[Path]:
        return [source.path for source, _ in self.material.tests[:10] if source.path is not None]


def trained(
    method: str,
    options: Mapping[str, Any],
    folder: Path,
    good: Any,
    shared: Shared,
    epochs: int | None = None,
) -> StoredModel:
    """A model of a trial, in a folder that the next one uses again."""
    choice = choice_of(method, options, folder, "trial")
    work = prepare(choice, good, epochs)
    return refuse_interrupted(train(choice, good, work, shared=shared).stored)


# -------------------------------------------------------------------------------- conclusions


def _conclude(run: _Run, unseen: Material, material: Material, storage: str) -> Tuning:
    """The default and the best on the half that the search has not seen."""
    done = run.trials("COMPLETE")
    front: list[dict[str, Any]] = []
    if run.objective == "both":
        best_trials = sorted(run.study.best_trials, key=lambda each: -each.user_attrs["merit"])
        best = best_trials[0]
        front = [
            {
                "merit": each.user_attrs["merit"],
                "image_ms": each.user_attrs["image_ms"],
                "options": each.user_attrs["options"],
            }
            for each in best_trials
        ]
    else:
        best = max(done, key=lambda each: (each.value, -each.number))  # of equals the first
    chosen = dict(best.user_attrs["options"])
    final = replace(run, material=unseen, unfit=set())
    default_figures, default_scored = _figures(final, {})
    figures, own = default_figures, default_scored
    if not _is_default(best):
        figures, own = _figures(final, chosen)
    (gain,) = differences(own, [default_scored], run.seed)
    is_better = gain.low > 0
    if run.objective == "latency" and not _is_default(best):
        is_better = _is_faster(figures, default_figures) and gain.low >= -_SLACK
    kinds = [kind for _, kind in unseen.tests]
    notes = [
        *material.notes,
        f"Half of the images to test on was kept from the search: {kinds.count(GOOD)} good and "
        f"{len(kinds) - kinds.count(GOOD)} defective.",
    ]
    if min(kinds.count(GOOD), len(kinds) - kinds.count(GOOD)) < _FEW:
        notes.append(f"Warning: these tell little; take {2 * _FEW} of each or more to test on.")
    return Tuning(
        method=run.space.method,
        objective=run.objective,
        storage=storage,
        n_trials=len(run.trials("COMPLETE", "PRUNED")),
        n_pruned=len(run.trials("PRUNED")),
        n_failed=sum("error" in each.user_attrs for each in run.trials("FAIL")),
        default=default_figures,
        best=figures,
        gain=gain,
        is_better=is_better,
        front=tuple(front),
        notes=tuple(notes),
    )


def _is_faster(one: Tuned, other: Tuned) -> bool:
    """Whether a time is shorter by more than measuring it leaves open."""
    if one.image_ms is None or other.image_ms is None:
        return False
    return one.image_ms <= _FASTER * other.image_ms


def _figures(run: _Run, values: Mapping[str, Any]) -> tuple[Tuned, Scored]:
    say("Testing the default" if not values else "Testing the best")
    stored, own = run._trained({**run.space.given, **values})
    speed = probe.measure(stored.directory, run._files())
    return (
        Tuned(
            options=dict(values),
            merit=merit(own),
            found=own.found,
            n_defective=len(own.defective),
            rejected=own.rejected,
            n_good=len(own.good),
            image_ms=None if speed is None else speed.image_ms,
        ),
        own,
    )


def _save(
    run: _Run, found: Tuning, material: Material, save_path: PathLike, name: str | None
) -> StoredModel:
    """Train what is recommended on all good images and save it, with the study and the reason."""
    choice = choice_of(found.method, {**run.space.given, **found.options}, save_path, name)
    reason = {
        "by": "tune",
        "why": found.recommendation,
        "objective": found.objective,
        "n_trials": found.n_trials,
        "default": asdict(found.default),
        "best": asdict(found.best),
        "gain": asdict(found.gain),
        "trials": [
            {"merit": each.user_attrs["merit"], "options": each.user_attrs["options"]}
            for each in run.trials("COMPLETE")
        ],
    }
    work = prepare(choice, material.whole, None)
    return train(choice, material.whole, work, chosen=reason).stored
