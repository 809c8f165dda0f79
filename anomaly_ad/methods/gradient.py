"""What methods share that are trained by gradient: the loop, the best weights, what is saved.

Adam, a learning rate that is halved where the validation no longer improves, an end when nothing is
gained any more, and the weights of the best epoch. A method says what its networks are, what its
batches hold, what the loss is, and what it learns after the weights. It learns from images or,
where it names a frozen graph of features, from a `FeatureSet`, which is computed once and read in
every epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import keras
import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..images import ImageSet
from ..runtime import Engine
from ..runtime.convert import to_openvino
from .base import Arrays, Detector, TrainingRecord, check_state, misfits
from .features import FeatureSet
from .plateau import EndOfGain

_PATIENCE = 4  # epochs without improvement, then the learning rate is halved
_WEIGHT = "weight_"

Items = Any  # what a method learns from: an ImageSet or, where it has a frozen graph, a FeatureSet


class GradientDetector(Detector):
    """A method that is trained by gradient.

    Subclasses set `networks`, the trained ones by name; frozen ones are not part of the state.
    """

    networks: dict[str, keras.Model]
    seed: int
    learning_rate = 2e-3
    batch_size = 8
    monitored = "val_loss"  # smaller is better

    def frozen(self) -> keras.Model | None:
        """The graph of the features that are learnt from: images in, named maps out; None for none.

        Where there is one, `batches`, `validation_batches` and `learn_after` get what it gives.
        """
        return None

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

    def batches(self, items: Items) -> keras.utils.PyDataset:
        """What an epoch is trained on: seeded, shuffled by itself."""
        return Batches(items, self.batch_size, self.seed)

    def validation_batches(self, items: Items) -> keras.utils.PyDataset:
        """What is monitored."""
        return Batches(items, self.batch_size)

    def learn_after(self, items: Items, validation: Items) -> None:
        """What is learnt once the weights are."""

    def fit(
        self,
        images: ImageSet,
        *,
        validation: ImageSet,
        epochs: int,
        progress: Callable[[str], None],
    ) -> Self:
        """Train, keep the best weights, then learn what comes after them."""
        frozen = self.frozen()
        if frozen is None:
            return self._fit(images, validation, epochs, progress)
        engine = Engine(to_openvino(frozen))
        received, given = engine.view_shape, images[slice(0, 1)].shape[1:]
        if received != given:
            raise OptionError(
                f"The graph of `frozen` takes views of shape {received}, where {given} are given; "
                "see methods.heads.model_input."
            )
        with ExitStack() as stack:
            some, others = (
                stack.enter_context(FeatureSet.compute(engine, part))
                for part in (images, validation)
            )
            return self._fit(some, others, epochs, progress)

    def _fit(
        self, items: Items, validation: Items, epochs: int, progress: Callable[[str], None]
    ) -> Self:
        trainer = _Trainer(self.networks, self.batch_loss)
        trainer.compile(self.optimizer())
        best = keras.callbacks.EarlyStopping(  # of which only the best weights are used
            self.monitored, patience=epochs, restore_best_weights=True
        )
        history = trainer.fit(
            self.batches(items),
            validation_data=self.validation_batches(validation),
            epochs=epochs,
            verbose=0,
            shuffle=False,  # the batches shuffle themselves, seeded
            callbacks=[
                keras.callbacks.ReduceLROnPlateau(self.monitored, factor=0.5, patience=_PATIENCE),
                best,
                EndOfGain(self.monitored, epochs, progress),
            ],
        ).history
        trainer.set_weights(best.best_weights)
        told = {name: [float(v) for v in history[name]] for name in ("loss", self.monitored)}
        self.record = TrainingRecord(len(history["loss"]), told)
        self.learn_after(items, validation)
        return self

    def state(self) -> dict[str, NDArray[Any]]:
        """The weights of the networks."""
        return {
            f"{self._prefix(name)}{number:03d}": array
            for name, network in self.networks.items()
            for number, array in enumerate(network.get_weights())
        }

    def can_restore(self, state: Arrays) -> bool:
        """Whether a state is of networks like these; those of another version may be others."""
        return not misfits(_weights(state), self._shapes())

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        own = self._shapes()
        check_state(_weights(state), own)
        for name, network in self.networks.items():
            prefix = self._prefix(name)
            network.set_weights([state[key] for key in sorted(own) if key.startswith(prefix)])
        return self

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        own = GradientDetector.state(self)  # a subclass has more, and sees to it
        return {name: array.shape for name, array in own.items()}

    def _prefix(self, name: str) -> str:
        return _WEIGHT if len(self.networks) == 1 else f"{name}_{_WEIGHT}"


def _weights(state: Arrays) -> dict[str, NDArray[Any]]:
    return {name: state[name] for name in state if _WEIGHT in name}


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
    """

    def __init__(self, items: Items, size: int, seed: int | None = None) -> None:
        super().__init__()
        self.items = items
        self.size = size
        self.is_shuffled = seed is not None
        self.random = np.random.default_rng(seed)
        self.order = np.arange(len(items))
        drawn = items.per_epoch if self.is_shuffled else None
        self.count = min(drawn or len(items), len(items))
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        if self.is_shuffled:
            self.order = self.random.permutation(len(self.items))[: self.count]

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
