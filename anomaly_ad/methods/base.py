"""What every method is: something that is fitted to good images and becomes one Keras graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import keras
import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..images import Framing, ImageSet
from .features import Features, FeatureSet

Arrays = Mapping[str, NDArray[Any]]


@dataclass
class TrainingRecord:
    """What a fit says of itself, for the manifest: plain numbers, and lists of them per epoch."""

    epochs: int | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int | None = None
    max_epochs: int | None = None
    is_interrupted: bool = False


@dataclass(frozen=True)
class Defects:
    """Images with rendered defects, which the epochs of a training are compared by.

    Parameters
    ----------
    images : ImageSet
        Views of good images, each with a defect.
    of : ndarray of int, shape (N,)
        Of which good image each is, by its place in the validation set.
    """

    images: ImageSet
    of: NDArray[np.intp]


class Detector:
    """A method. Subclasses say how they fit and what graph they become.

    Parameters
    ----------
    framing : Framing
        What the graph takes.
    patch_size : int
        Side of a patch in pixels of the graph's input.
    seed : int
        The same data, seed and machine give the same detector.
    **parameters
        The method's own options, as the registry lists them.
    """

    def __init__(self, framing: Framing, patch_size: int, seed: int, **parameters: Any) -> None:
        raise NotImplementedError

    def fit(
        self,
        images: ImageSet,
        *,
        validation: ImageSet,
        epochs: int,
        progress: Callable[[str], None],
        defects: Defects | None = None,
    ) -> Self:
        """Learn from good images; on a detector that is fitted already, go on.

        Parameters
        ----------
        images, validation : ImageSet
            Disjoint; re-iterable streams of views, uint8 (B, height, width, channels).
        epochs : int
            Passes over the images, for methods that learn by gradient.
        progress : callable
            Called after each epoch with a short note.
        defects : Defects, optional
            Validation images with rendered defects, for methods that are validated by them.
        """
        raise NotImplementedError

    def graph(self) -> keras.Model:
        """The fitted detector as one graph.

        uint8 images (B, height, width, channels) -> a dictionary with "score", float32 (B,), and
        where the method has one "anomaly_map", float32 (B, height, width); both in the method's
        own unit, higher = more anomalous. An autoencoder adds "reconstruction", float32
        (B, height, width, channels) in 0..255. Where the framing has an `inside`, that is a second
        input, uint8 (B, height, width): what is 0 there is not scored, and 0 in the map.
        """
        raise NotImplementedError

    def state(self) -> dict[str, NDArray[Any]]:
        """What training needs to go on, and no more."""
        raise NotImplementedError

    def can_restore(self, state: Arrays) -> bool:
        """Whether a state is of a detector built like this one; another version's may not be."""
        return True

    def restore(self, state: Arrays) -> Self:
        """The inverse of `state`, on a detector made with the same parameters.

        Raises
        ------
        ModelError
            The arrays are not those of such a detector.
        """
        raise NotImplementedError

    record: TrainingRecord
    scores_are_logs = False  # whether its scores are logarithms already, as those of densities are


class StatisticalDetector(Detector):
    """A method that learns statistics of features; its fit is `training`'s business.

    Features come from the graph that `features` gives. What is learnt from them is in `statistic`,
    an object with `update(vectors)`, `merge(other)`, `without(other)` and `count`.
    """

    statistic: Any

    def features(self) -> keras.Model:
        """uint8 images (B, height, width, channels) -> {"features": float32 (B, ..., C)}.

        Where the framing has an `inside`, that is a second input and comes out as it is.
        """
        raise NotImplementedError

    def new_statistic(self) -> Any:
        """One that has seen nothing."""
        raise NotImplementedError

    def new_preparation(self) -> Any | None:
        """A statistic of what must be known of all features before the first of them is learnt.

        As `statistic`, but for `without`. None, for most methods.
        """
        return None

    def look(self, preparation: Any, features: Features) -> None:
        """Add a batch of features to a preparation."""
        raise NotImplementedError

    def prepare(self, preparation: Any) -> None:
        """Take what is needed of all features; it stays when images are added."""
        raise NotImplementedError

    def learn(self, statistic: Any, features: Features) -> None:
        """Add a batch of features, as the graph gives them, to a statistic."""
        vectors = features["features"]
        statistic.update(vectors.reshape(len(vectors), -1, vectors.shape[-1]))

    def learn_all(self, features: FeatureSet) -> None:
        """Add all features to what was learnt so far."""
        if not self.statistic.count:
            self.prepare_from(features)
        self.statistic = features.gather(self, "learn", self.statistic)

    def prepare_from(
        self, features: FeatureSet, indices: NDArray[np.integer] | None = None
    ) -> None:
        """See all features once, or those of some images, where the method needs that."""
        preparation = self.new_preparation()
        if preparation is not None:
            self.prepare(features.gather(self, "look", preparation, indices))

    def folds(self, count: int) -> int:
        """How many parts `count` images fall into that are each scored by a fit without it.

        Where images come in groups, `count` is that of the groups.
        """
        return min(5, count)

    def unseen_scorer(self, statistic: Any) -> Callable[[Features], dict[str, NDArray]] | None:
        """As `scorer`, for images that the statistic has learnt: as if it had not learnt each.

        None where there is no such formula; then `folds` are fitted, as for images in tiles.
        """
        return None

    def scorer(self, statistic: Any) -> Callable[[Features], dict[str, NDArray]]:
        """The formula of the graph in numpy, for statistics that are scored but never saved.

        Returns
        -------
        callable
            Features, as their graph gives them -> "score" (B,) and, where the method has one,
            "anomaly_map" (B, height, width), as the graph would give them with this statistic.
        """
        raise NotImplementedError


def check_state(state: Arrays, expected: Mapping[str, tuple[int | None, ...]]) -> None:
    """Raise ModelError unless `state` holds exactly these names with these shapes, all finite.

    None in a shape stands for any length.
    """
    if odd := misfits(state, expected):
        raise ModelError(
            "The training state does not fit the model that the manifest describes: "
            f"{dict([*odd.items()][:4])}. Restore the model directory from a copy, or train it "
            "again."
        )
    for name, array in state.items():
        if not np.isfinite(array).all():
            raise ModelError(f"The training state holds values that are not finite in {name!r}.")


def misfits(
    state: Arrays, expected: Mapping[str, tuple[int | None, ...]]
) -> dict[str, tuple[int, ...] | None]:
    """The arrays of `state` that are not as `check_state` expects, by name: their shapes."""
    received = {name: tuple(array.shape) for name, array in state.items()}
    return {
        name: received.get(name)
        for name in {**expected, **received}
        if not _fits(received.get(name), expected.get(name))
    }


def _fits(shape: tuple[int, ...] | None, expected: tuple[int | None, ...] | None) -> bool:
    if shape is None or expected is None or len(shape) != len(expected):
        return False
    return all(wanted in (None, size) for size, wanted in zip(shape, expected, strict=True))
