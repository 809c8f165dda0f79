"""What methods share that are trained by gradient: the loop, the best weights, what is saved.

Adam, a learning rate that is halved where the validation no longer improves, an early end, and the
weights of the best epoch. A method says what its networks are, what its batches hold, what the loss
is, and what it learns after the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import keras
from numpy.typing import NDArray

from ..images import ImageSet
from .base import Arrays, Detector, TrainingRecord, check_state

_PATIENCE = 5  # epochs without improvement, then the learning rate is halved
_WEIGHT = "weight_"


class GradientDetector(Detector):
    """A method that is trained by gradient.

    Subclasses set `networks`, the trained ones by name; frozen ones are no part of the state.
    """

    networks: dict[str, keras.Model]
    learning_rate = 2e-3
    monitored = "val_loss"  # smaller is better

    def trainer(self) -> keras.Model:
        """A model of the networks whose `compute_loss` is the method's, not compiled yet."""
        raise NotImplementedError

    def batches(self, images: ImageSet) -> keras.utils.PyDataset:
        """What an epoch is trained on: seeded, shuffled by itself."""
        raise NotImplementedError

    def validation_batches(self, images: ImageSet) -> keras.utils.PyDataset:
        """What is monitored."""
        raise NotImplementedError

    def learn_after(self, images: ImageSet, validation: ImageSet) -> None:
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
        trainer = self.trainer()
        trainer.compile(keras.optimizers.Adam(self.learning_rate))
        best = keras.callbacks.EarlyStopping(
            self.monitored, patience=max(20, epochs // 3), restore_best_weights=True
        )

        def tell(_: int, logs: dict[str, float]) -> None:
            progress(f"{self.monitored} {logs[self.monitored]:.4f}")

        history = trainer.fit(
            self.batches(images),
            validation_data=self.validation_batches(validation),
            epochs=epochs,
            verbose=0,
            shuffle=False,  # the batches shuffle themselves, seeded
            callbacks=[
                keras.callbacks.ReduceLROnPlateau(self.monitored, factor=0.5, patience=_PATIENCE),
                best,
                keras.callbacks.LambdaCallback(on_epoch_end=tell),
            ],
        ).history
        trainer.set_weights(best.best_weights)
        told = {name: [float(v) for v in history[name]] for name in ("loss", self.monitored)}
        self.record = TrainingRecord(len(history["loss"]), told)
        self.learn_after(images, validation)
        return self

    def state(self) -> dict[str, NDArray[Any]]:
        """The weights of the networks."""
        return {
            f"{self._prefix(name)}{number:03d}": array
            for name, network in self.networks.items()
            for number, array in enumerate(network.get_weights())
        }

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        own = GradientDetector.state(self)  # a subclass has more, and sees to it
        weights = {name: state[name] for name in state if _WEIGHT in name}
        check_state(weights, {name: array.shape for name, array in own.items()})
        for name, network in self.networks.items():
            prefix = self._prefix(name)
            network.set_weights([state[key] for key in sorted(own) if key.startswith(prefix)])
        return self

    def _prefix(self, name: str) -> str:
        return _WEIGHT if len(self.networks) == 1 else f"{name}_{_WEIGHT}"
