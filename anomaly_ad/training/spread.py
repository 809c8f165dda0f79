"""Features that stay in the processes that computed them, and what is learnt from them there.

The driver sends decoded views out and gets statistics back, merged in a tree; a feature map is
several times as large as the view that it comes from, and is never sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..images import Framing, ImageSet
from ..methods.features import FeatureSet
from ..model import Plan
from ..runtime import Engine
from ..workers import Held, Spreading

if TYPE_CHECKING:
    from ..methods.base import StatisticalDetector

_VIEWS = 128  # of a part, about: what is sent at a time
_SCORED = 32  # images whose maps are sent at a time


class SpreadFeatures:
    """The features of a set of images, part by part in other processes; see `FeatureSet`.

    Parameters
    ----------
    workers : Spreading
        The processes.
    plan : Plan
        Of the method.
    engine : Engine
        Views -> features.
    images : ImageSet
        All images; sent once more where a process is lost.
    step : callable
        Called after each image, for a progress bar.
    """

    def __init__(
        self,
        workers: Spreading,
        plan: Plan,
        engine: Engine,
        images: ImageSet,
        step: Callable[[str], None],
    ) -> None:
        self._workers, self._count = workers, len(images)
        self._n_scored = 0  # statistics that were scored with
        size = max(_VIEWS * len(images) // max(images.total_views, 1), 1)
        size = min(size, -(-len(images) // workers.count))
        self._parts = [
            np.arange(start, min(start + size, len(images)))
            for start in range(0, len(images), size)
        ]
        self._helds: Sequence[Held] = workers.hold(_Learner(plan, engine))
        under_way: deque[tuple[Callable[[], Any], int]] = deque()

        def wait() -> None:
            result, count = under_way.popleft()
            result()
            for _ in range(count):
                step("")

        for number, part in enumerate(self._parts):
            held = self._helds[number % len(self._helds)]
            args = _Sent(images, part)
            under_way.append((held.tell("add", args), len(part)))
            if len(under_way) >= 2 * len(self._helds):
                wait()
        while under_way:
            wait()

    def __exit__(self, *exception: object) -> None:
        self._helds = []

    def __len__(self) -> int:
        return self._count

    def renamed(self, names: Mapping[str, str]) -> SpreadFeatures:
        """Itself: the names of features are those of the method."""
        return self

    def gather(
        self,
        detector: StatisticalDetector,
        step: str,
        into: Any,
        indices: NDArray[np.integer] | None = None,
    ) -> Any:
        """As `FeatureSet.gather`, by all processes at a time."""
        args = [(step, indices)] * len(self._helds)
        into.merge(self._workers.merged("gather", self._helds, args))
        if step == "look":
            for wait in [held.tell("prepare", lambda: (into,)) for held in self._helds]:
                wait()
        return into

    def scored(
        self,
        detector: StatisticalDetector,
        statistic: Any,
        indices: NDArray[np.integer],
        framing: Framing,
        *,
        has_learnt: bool,
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """As `FeatureSet.scored`, in another order."""
        owner = np.empty(self._count, np.intp)
        for number, part in enumerate(self._parts):
            owner[part] = number % len(self._helds)
        self._n_scored += 1
        shared = self._workers.share(statistic)
        asked: deque[Callable[[], Any]] = deque()
        for start in range(0, len(indices), _SCORED * len(self._helds)):
            some = np.asarray(indices[start : start + _SCORED * len(self._helds)])
            for number, held in enumerate(self._helds):
                own = some[owner[some] == number]
                if len(own):
                    asked.append(held.ask("scored", self._n_scored, shared, own, has_learnt))
            while len(asked) > 2 * len(self._helds):
                yield from asked.popleft()()
        while asked:
            yield from asked.popleft()()


@dataclass(frozen=True)
class _Sent:
    """The images of a part, when they are needed."""

    images: ImageSet
    part: NDArray[np.intp]

    def __call__(self) -> tuple[ImageSet, NDArray[np.intp]]:
        return self.images.packed(self.part), self.part


@dataclass(frozen=True)
class _Learner:
    """Makes what works in another process."""

    plan: Plan
    engine: Engine

    def __call__(self) -> Learner:
        return Learner(self.plan, self.engine)


class Learner:
    """Works in another process: the features of some parts, and what is learnt from them.

    Parameters
    ----------
    plan : Plan
        Of the method.
    engine : Engine
        Views -> features.
    """

    def __init__(self, plan: Plan, engine: Engine) -> None:
        from .steps import build

        self._detector = build(plan)
        self._engine, self._framing = engine, plan.framing
        self._sets: dict[int, tuple[NDArray[np.intp], FeatureSet]] = {}  # by the first index
        self._scorer: tuple[int, Callable[..., dict[str, NDArray[Any]]]] | None = None

    def add(self, images: ImageSet, part: NDArray[np.intp]) -> None:
        """Compute and keep the features of a part."""
        with ExitStack() as stack:
            features = stack.enter_context(FeatureSet.compute(self._engine, images))
            before = self._sets.pop(int(part[0]), None)
            if before is not None:
                before[1].__exit__()
            self._sets[int(part[0])] = np.asarray(part), features
            stack.pop_all()

    def prepare(self, seen: Any) -> None:
        """Take what was seen of all features."""
        self._detector.prepare(seen)

    def gather(self, step: str, indices: NDArray[np.integer] | None) -> Any:
        """A new statistic of the features here; of `indices` alone, where there are any."""
        detector = self._detector
        into = detector.new_preparation() if step == "look" else detector.new_statistic()
        for places, features in self._own(indices):
            features.gather(detector, step, into, places)
        return into

    def scored(
        self, number: int, statistic: Any, indices: NDArray[np.integer], has_learnt: bool
    ) -> list[tuple[int, dict[str, NDArray[Any]]]]:
        """What a statistic says of some of the images here, each with its index.

        `number` is that of the statistic: what scores is made of it once.
        """
        if self._scorer is None or self._scorer[0] != number:
            detector = self._detector
            made = (detector.unseen_scorer if has_learnt else detector.scorer)(statistic)
            assert made is not None
            self._scorer = number, made
        score, found = self._scorer[1], []
        for own, places, features in self._own_with_indices(indices):
            scores = features.scored_by(score, places, self._framing)
            found += [(int(own[place]), outputs) for place, outputs in scores]
        return found

    def _own(
        self, indices: NDArray[np.integer] | None
    ) -> Iterator[tuple[NDArray[np.intp], FeatureSet]]:
        return ((places, features) for _, places, features in self._own_with_indices(indices))

    def _own_with_indices(
        self, indices: NDArray[np.integer] | None
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], FeatureSet]]:
        """Of each part here: all its indices, the places of those that are meant, features."""
        for own, features in self._sets.values():
            places = np.arange(len(own))
            if indices is not None:
                places = np.flatnonzero(np.isin(own, indices))
            if len(places):
                yield own, places, features
