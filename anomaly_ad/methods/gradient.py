"""What methods share that are trained by gradient: the loop, the best weights, what is saved.

Adam, a learning rate that is halved where the validation no longer improves, an end when nothing is
gained any more, and the weights of the best epoch. A method says what its networks are, what its
batches hold, what the loss is, and what it learns before and after the weights. It learns from
images or, where it names a frozen graph of features, from a `FeatureSet`, which is computed once
and read in every epoch.

The best epoch is that of the smallest loss on good images that training does not see or, where that
loss says little of defects, the one that tells rendered defects on them best from the same images
without. No image of a test set is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import keras
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, TrainingError
from ..images import ImageSet
from ..runtime import Engine
from ..runtime.convert import to_openvino
from ..statistics.ranking import partial_auroc
from ..support import say
from .base import Arrays, Defects, Detector, TrainingRecord, check_state, misfits
from .features import FeatureSet
from .plateau import MISSED, TELLS, Course, Reached

_PATIENCE = 4  # epochs without improvement, then the learning rate is halved
_WEIGHT = "weight_"
_LAST, _HISTORY = "last_", "history_"  # of what training goes on from

FALSE_ALARMS = 0.05  # up to which the partial AUROC is taken
_AT_A_TIME = 32  # images that are validated together

Items = Any  # what a method learns from: an ImageSet or, where it has a frozen graph, a FeatureSet
Tensors = dict[str, keras.KerasTensor]


class GradientDetector(Detector):
    """A method that is trained by gradient.

    Subclasses set `networks`, the trained ones by name; frozen ones are not part of the state.

    Attributes
    ----------
    learning_rate : float
        At first.
    batch_size : int
        Images in a batch.
    least_per_epoch : int
        Images that an epoch shows at least; of fewer each comes several times.
    engine : Engine
        The frozen graph, while `fit` runs.
    monitored : str
        Smaller is better: "val_loss", the loss of good images that training does not see, or
        `MISSED`: 1 - the partial AUROC up to 5 % false alarms on the same images and rendered
        defects on them.
    """

    networks: dict[str, keras.Model]
    seed: int
    engine: Engine
    learning_rate = 2e-3
    batch_size = 8
    least_per_epoch = 0
    monitored = "val_loss"
    _reached: Reached | None = None

    @property
    def needs_defects(self) -> bool:
        """Whether its epochs are compared by rendered defects."""
        return self.monitored == MISSED

    def frozen(self) -> keras.Model | None:
        """The graph of the features that are learnt from: images in, named maps out; None for none.

        Where there is one, `batches`, `validation_batches` and what is learnt before and after
        get what it gives.
        """
        return None

    def outputs(self, features: Tensors) -> Tensors:
        """What the networks say at inference of what `frozen` gives: "score", "anomaly_map".

        See `Detector.graph`, whose outputs they are.
        """
        raise NotImplementedError

    def graph(self) -> keras.Model:
        """The frozen graph and `outputs` as one."""
        frozen = self.frozen()
        assert frozen is not None
        return keras.Model(frozen.input, self.outputs(frozen.output))

    def optimizer(self) -> keras.optimizers.Optimizer:
        """What moves the weights."""
        return keras.optimizers.Adam(self.learning_rate)

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """The loss of a batch, a scalar.

        Parameters
        ----------
        x, y : tensor, or dict of tensor
            What `batches` gives; `y` is None where that gives no pairs.
        training : bool
            Whether the networks are trained by it, or monitored.
        """
        raise NotImplementedError

    def batches(self, items: Items) -> Batches:
        """What an epoch is trained on: seeded, shuffled by itself."""
        return Batches(items, self.batch_size, self.seed, self.least_per_epoch)

    def validation_batches(self, items: Items) -> Batches:
        """What is monitored."""
        return Batches(items, self.batch_size)

    def learn_before(self, items: Items) -> None:
        """What is learnt before the weights; not again where training goes on."""

    def constants(self) -> dict[str, NDArray[Any]]:
        """What `learn_before` has learnt, by names that do not begin with "weight"."""
        return {}

    def learn_after(self, items: Items, validation: Items) -> None:
        """What is learnt once the weights are."""

    def fit(
        self,
        images: ImageSet,
        *,
        validation: ImageSet,
        epochs: int,
        progress: Callable[[str], None],
        defects: Defects | None = None,
    ) -> Self:
        """Train, keep the best weights, then learn what comes after them.

        Where a person interrupts (Ctrl-C), training ends with the best weights so far; before the
        first epoch is over, `KeyboardInterrupt` is passed on.

        Raises
        ------
        TrainingError
            The loss is not finite, or most images score higher than the same with a rendered
            defect.
        """
        parts = {"fit": images, "validation": validation}
        if self.needs_defects:
            if defects is None:
                raise TypeError("a method that is validated by defects is given some")
            parts["defects"] = defects.images
        of = None if defects is None else defects.of
        frozen = self.frozen()
        if frozen is None:
            return self._fit(**parts, of=of, epochs=epochs, progress=progress)
        engine = self.engine = Engine(to_openvino(frozen))
        received, given = engine.view_shape, images[slice(0, 1)].shape[1:]
        if received != given:
            raise OptionError(
                f"The graph of `frozen` takes views of shape {received}, where {given} are given; "
                "see methods.heads.model_input."
            )
        with ExitStack() as stack:
            sets = {
                name: stack.enter_context(FeatureSet.compute(engine, part))
                for name, part in parts.items()
            }
            return self._fit(**sets, of=of, epochs=epochs, progress=progress)

    def _fit(
        self,
        fit: Items,
        validation: Items,
        epochs: int,
        progress: Callable[[str], None],
        defects: Items = None,
        of: NDArray[np.intp] | None = None,
    ) -> Self:
        trainer = _Trainer(self.networks, self.batch_loss)
        optimizer = self.optimizer()
        trainer.compile(optimizer)
        optimizer.build(trainer.trainable_variables)
        variables = [*trainer.network_variables, *optimizer.variables]
        if not _take_over(variables, self._reached):
            self._reached = None
        if self._reached is None:
            self.learn_before(fit)
        measure = None if defects is None else _Missed(self, validation, defects)
        done = 0 if self._reached is None else len(self._reached.history["loss"])
        course = Course(
            self.monitored,
            done + epochs,
            progress,
            weights=self._all_weights,
            variables=variables,
            rate=self.learning_rate,
            patience=_PATIENCE,
            reached=self._reached,
            measure=measure,
        )
        batches = self.batches(fit)
        batches.begin(done)
        is_interrupted = False
        try:
            trainer.fit(
                batches,
                validation_data=None if measure else self.validation_batches(validation),
                initial_epoch=done,
                epochs=done + epochs,
                verbose=0,
                shuffle=False,  # the batches shuffle themselves, seeded
                callbacks=[course],
            )
        except KeyboardInterrupt:
            if course.reached is self._reached:
                raise
            is_interrupted = True
        reached = course.reached
        assert reached is not None
        figures = np.array(reached.history[self.monitored])
        if not np.isfinite(figures).any():
            raise TrainingError(
                f"Training has diverged: {self.monitored} was not finite in any epoch. Nothing "
                "was saved. Train again with another seed; if that diverges too, report it as a "
                "bug."
            )
        best = int(np.nanargmin(np.where(np.isfinite(figures), figures, np.nan))) + 1
        if is_interrupted:
            say(f"Interrupted after epoch {len(figures)}: the weights of epoch {best} are taken.")
        self._set_weights(reached.best)
        self._reached = reached
        if measure is not None:
            measure.check(of)
        self.record = TrainingRecord(
            len(figures), reached.history, best, done + epochs, is_interrupted
        )
        self.learn_after(fit, validation)
        return self

    def state(self) -> dict[str, NDArray[Any]]:
        """The weights of the networks, the constants, and what training goes on from."""
        return {**self._weights(), **self.constants(), **_stored(self._reached)}

    def _all_weights(self) -> list[NDArray[Any]]:
        """Of all networks, one after the other."""
        return [np.array(w) for each in self.networks.values() for w in each.get_weights()]

    def _set_weights(self, weights: Sequence[NDArray[Any]]) -> None:
        """The inverse of `_all_weights`."""
        left = [*weights]
        for network in self.networks.values():
            count = len(network.weights)
            network.set_weights(left[:count])
            del left[:count]

    def _weights(self) -> dict[str, NDArray[Any]]:
        return {
            f"{self._prefix(name)}{number:03d}": array
            for name, network in self.networks.items()
            for number, array in enumerate(network.get_weights())
        }

    def can_restore(self, state: Arrays) -> bool:
        """Whether a state is of networks like these; those of another version may be others."""
        own = self._own()
        return not misfits({n: state[n] for n in state if n in own or _WEIGHT in n}, _shapes(own))

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        own = self._own()
        check_state({n: state[n] for n in state if n in own or _WEIGHT in n}, _shapes(own))
        best = [np.asarray(state[name]) for name in self._weights()]
        self._set_weights(best)
        for name, array in self.constants().items():
            array[...] = state[name]
        self._reached = _restored(state, self.monitored, best)
        return self

    def _own(self) -> dict[str, NDArray[Any]]:
        return {**self._weights(), **self.constants()}

    def _prefix(self, name: str) -> str:
        return _WEIGHT if len(self.networks) == 1 else f"{name}_{_WEIGHT}"


def _shapes(arrays: Arrays) -> dict[str, tuple[int | None, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def without_course(state: Arrays) -> dict[str, NDArray[Any]]:
    """A state without what training goes on from, which models of earlier versions do not have."""
    return {name: state[name] for name in state if not name.startswith((_LAST, _HISTORY))}


def _stored(reached: Reached | None) -> dict[str, NDArray[Any]]:
    """What training goes on from, next to the best weights."""
    if reached is None:
        return {}
    last = {f"{_LAST}{number:03d}": array for number, array in enumerate(reached.last)}
    history = {f"{_HISTORY}{name}": np.array(v) for name, v in reached.history.items()}
    return {**last, **history}


def _restored(state: Arrays, monitored: str, best: list[NDArray[Any]]) -> Reached | None:
    """The inverse of `_stored`; None where a state has none, or of another figure."""
    last = [state[name] for name in sorted(state) if name.startswith(_LAST)]
    names = {f"{_HISTORY}{name}": name for name in ("loss", monitored)}
    history = {name: state[key].tolist() for key, name in names.items() if key in state}
    if not last or len(history) < len(names) or len({*map(len, history.values())}) > 1:
        return None
    return Reached(history, best, last)


def _take_over(variables: Sequence[keras.Variable], reached: Reached | None) -> bool:
    """Set all that training changes to where an earlier one ended; False where that has others."""
    if reached is None or [v.shape for v in variables] != [a.shape for a in reached.last]:
        return False
    for variable, array in zip(variables, reached.last, strict=True):
        variable.assign(array)
    return True


class _Missed:
    """How badly rendered defects are told from good images: 1 - the partial AUROC."""

    def __init__(self, detector: GradientDetector, good: Items, defects: Items) -> None:
        inputs = {
            name: keras.Input(values.shape[1:], dtype=values.dtype.name, name=name)
            for name, values in good[slice(0, 1)].items()
        }
        self._model = keras.Model(inputs, {"score": detector.outputs(inputs)["score"]})
        self._sets = [Batches(items, _AT_A_TIME) for items in (good, defects)]

    def _scores(self) -> list[NDArray[np.float32]]:
        return [
            np.concatenate(
                [
                    self._model.predict_on_batch(batches[n])["score"].ravel()
                    for n in range(len(batches))
                ]
            )
            for batches in self._sets
        ]

    def __call__(self) -> float:
        good, defective = self._scores()
        if not (np.isfinite(good).all() and np.isfinite(defective).all()):
            return float("nan")
        return 1 - partial_auroc(good, defective, FALSE_ALARMS)

    def check(self, of: NDArray[np.intp] | None) -> None:
        """Raise TrainingError if the weights, as they stand, do no better than chance.

        Each defect is compared with the same image without it, `of` the good ones; so a few images
        are enough to tell. Where half of the defects change nothing, but others stand out from all
        good images, that is more than chance as well.
        """
        good, defective = self._scores()
        own = good[of]
        found = float(np.mean((defective > own) + 0.5 * (defective == own)))
        if found <= 0.5 and 1 - partial_auroc(good, defective, FALSE_ALARMS) >= TELLS:
            raise TrainingError(
                "Training has come to nothing: of an image without and with a rendered defect the "
                f"defective one has the higher score in {found:.0%} of cases, no more often than "
                "by chance. Nothing was saved. Train longer, with another seed, or with another "
                "method."
            )


class Batches(keras.utils.PyDataset):
    """Images or features in batches: in their order or, with a seed, shuffled for each epoch.

    Parameters
    ----------
    items : ImageSet or FeatureSet
        A batch is what indexing it gives.
    size : int
        Images in a batch.
    seed : int, optional
        None for the order in which they come.
    least : int
        Images in an epoch, at least; of fewer each comes several times. With a seed only.
    """

    def __init__(self, items: Items, size: int, seed: int | None = None, least: int = 0) -> None:
        super().__init__()
        self.items = items
        self.size = size
        self.seed = seed
        drawn = None if seed is None else items.per_epoch
        self.times = 1 if seed is None else max(round(least / len(items)), 1)
        self.count = min(drawn or len(items), len(items)) * self.times
        self.begin(0)

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def begin(self, epoch: int) -> None:
        """Shuffle for an epoch, numbered from 0."""
        self.epoch = epoch
        self.order = np.arange(len(self.items))
        if self.seed is not None:
            every = np.tile(self.order, self.times)
            self.order = self.random().permutation(every)[: self.count]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch."""
        self.begin(self.epoch + 1)

    def random(self, *place: int) -> np.random.Generator:
        """Where chance comes from in this epoch or, with an index, in one of its batches.

        The same whatever was drawn before: a training that goes on draws as if it had not ended.
        """
        return np.random.default_rng([self.seed or 0, self.epoch, *place])

    def chosen(self, index: int) -> Any:
        """The items of a batch."""
        return self.items[self.order[index * self.size : (index + 1) * self.size]]

    def __getitem__(self, index: int) -> Any:
        return self.chosen(index)


class _Trainer(keras.Model):
    """The networks as they are trained: their loss is the method's."""

    def __init__(
        self, networks: dict[str, keras.Model], loss: Callable[..., keras.KerasTensor]
    ) -> None:
        super().__init__(name="trainer")  # Keras takes no name that begins as this class's does
        self.networks = list(networks.values())
        self.of_batch = loss

    @property
    def network_variables(self) -> list[keras.Variable]:
        """The weights, and the state of what draws at random."""
        return [variable for network in self.networks for variable in network.variables]

    def call(self, x: Any, training: bool | None = None) -> Any:
        return x  # the loss runs the networks

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> keras.KerasTensor:
        return self.of_batch(x, y, training=training)
