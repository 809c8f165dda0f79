"""Methods that are trained by gradient: best weights, going on, interruption, failure."""

import keras
import numpy as np
import pytest
from conftest import draw_part, write_parts
from keras import ops

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, TrainingError
from anomaly_ad.images import Framing, ImageSet
from anomaly_ad.methods import gradient, plateau
from anomaly_ad.methods.base import Defects, TrainingRecord
from anomaly_ad.methods.gradient import GradientDetector
from anomaly_ad.methods.heads import model_input
from anomaly_ad.methods.plateau import MISSED

FRAMING = Framing(16, 16, 3)
SMALL = {"img_size": (32, 32), "patch_size": 8}


def images(count, *, first=0, defect=False):
    drawn = (draw_part(first + n, defect=defect) for n in range(count))
    return ImageSet(np.stack([FRAMING.views(image) for image in drawn]))


class Linear(GradientDetector):
    """Mean colours are rebuilt by one layer; what cannot be is odd."""

    monitored = MISSED
    learning_rate = 0.05
    sign = 1.0

    def __init__(self, seed=0):
        self.seed = seed
        self.record = TrainingRecord()
        pictures, _ = model_input(FRAMING)
        maps = ops.average_pool(ops.cast(pictures, "float32") / 255.0, 4)
        self._frozen = keras.Model(pictures, {"features": maps})
        cells = keras.Input(maps.shape[1:])
        start = keras.initializers.GlorotUniform(seed=seed)
        x = keras.layers.Dense(1, kernel_initializer=start)(cells)
        x = keras.layers.Dense(3, kernel_initializer=start)(x)
        self.networks = {"rebuilds": keras.Model(cells, x)}

    def frozen(self):
        return self._frozen

    def errors(self, features, training=False):
        rebuilt = self.networks["rebuilds"](features["features"], training=training)
        return ops.mean(ops.square(features["features"] - rebuilt), axis=-1)

    def batch_loss(self, x, y, *, training):
        return ops.mean(self.errors(x, training))

    def outputs(self, features):
        score = ops.max(self.errors(features), axis=(1, 2))
        return {"score": self.sign * score, "anomaly_map": self.errors(features)}


def fit(detector, epochs, progress=lambda note: None):
    return detector.fit(
        images(12),
        validation=images(6, first=50),
        epochs=epochs,
        progress=progress,
        defects=Defects(images(6, first=50, defect=True), np.arange(6)),
    )


def test_the_best_epoch_is_that_which_tells_rendered_defects_best():
    notes = []
    detector = fit(Linear(), 8, notes.append)
    record = detector.record
    missed = record.history[MISSED]
    assert len(missed) == len(notes) == record.epochs == record.max_epochs == 8
    assert record.best_epoch == 1 + int(np.argmin(missed))
    short = fit(Linear(), record.best_epoch)
    for one, other in zip(short.state().items(), detector.state().items(), strict=False):
        if one[0].startswith("weight"):
            np.testing.assert_allclose(one[1], other[1], atol=1e-6)
    assert f"rendered defects missed {missed[0]:.4f}" in notes[0] and "loss " in notes[0]
    assert "left" in notes[0]


@pytest.mark.parametrize("monitored", [MISSED, "val_loss"])
def test_a_training_that_goes_on_is_one_that_never_ended(monitored, monkeypatch):
    monkeypatch.setattr(Linear, "monitored", monitored)
    monkeypatch.setattr(plateau, "halvings", lambda losses, patience: len(losses) // 2)
    whole = fit(Linear(), 5)
    first = fit(Linear(), 2)
    going_on = fit(Linear().restore(first.state()), 3)
    expected, received = whole.state(), going_on.state()
    assert expected.keys() == received.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    assert going_on.record.epochs == 5 and len(going_on.record.history["loss"]) == 5


def test_a_state_without_a_course_begins_with_its_weights():
    first = fit(Linear(), 3)
    old = {name: array for name, array in first.state().items() if name.startswith("weight")}
    again = Linear(seed=5)
    assert again.can_restore(old)
    again.restore(old)
    for own, array in zip(again.networks["rebuilds"].get_weights(), old.values(), strict=True):
        np.testing.assert_array_equal(own, array)
    assert fit(again, 2).record.epochs == 2


def test_an_interruption_ends_with_the_best_weights_so_far(capsys):
    def interrupt(note):
        notes.append(note)
        if len(notes) == 4:
            raise KeyboardInterrupt

    notes = []
    record = fit(Linear(), 50, interrupt).record
    assert record.is_interrupted and record.epochs == 4
    assert f"the weights of epoch {record.best_epoch} are taken" in capsys.readouterr().err


def test_an_interruption_before_the_first_epoch_is_over_leaves_nothing(monkeypatch):
    def interrupt(self, x, y, *, training):
        raise KeyboardInterrupt

    monkeypatch.setattr(Linear, "batch_loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(Linear(), 3)


def test_a_loss_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setattr(Linear, "learning_rate", 1e30)
    with pytest.raises(TrainingError, match="diverged: the loss of epoch"):
        fit(Linear(), 5)


def test_scores_that_are_not_finite_are_an_error(monkeypatch):
    monkeypatch.setattr(Linear, "sign", float("nan"))
    with pytest.raises(TrainingError, match="was not finite in any epoch"):
        fit(Linear(), 2)


def test_worse_than_chance_is_an_error(monkeypatch):
    monkeypatch.setattr(Linear, "sign", -1.0)
    with pytest.raises(TrainingError, match="no more often than by chance"):
        fit(Linear(), 2)


@pytest.mark.slow
def test_a_saved_model_goes_on_and_a_failure_saves_nothing(tmp_path, monkeypatch, capsys):
    folder = write_parts(tmp_path / "parts", 14)
    options = {**SMALL, "save_path": tmp_path}
    whole = AD("rd", folder, name="whole", **options).train(4, review=False)
    ad = AD("rd", folder, **options).train(2, review=False)
    again = AD(ad.model.directory, folder).train(2, review=False)
    record = again.model.manifest.training
    assert record["continued_from"] == ad.model.digest
    assert record["epochs"] == record["max_epochs"] == 4
    expected, received = whole.model.state(), again.model.state()
    for name, values in expected.items():
        if not name.startswith("held_out"):
            np.testing.assert_allclose(received[name], values, rtol=1e-3, atol=1e-4, err_msg=name)
    before = {file.name for file in again.model.directory.iterdir()}
    monkeypatch.setattr("anomaly_ad.methods.rd.ReverseDistillation.learning_rate", 1e30)
    with pytest.raises(TrainingError, match="diverged"):
        AD("rd", folder, **options).train(3, review=False)
    assert {file.name for file in again.model.directory.iterdir()} == before
    assert AD(again.model.directory).model.digest == again.model.digest


@pytest.mark.parametrize(
    ("defective", "is_nothing"),
    [
        ([0.0, 1.1, 2.1, 3.1], False),  # each a little higher than the same image without it
        ([0.0, 0.9, 1.9, 2.9], True),
        ([0.0, 0.9, 1.9, 9.0], False),  # a fourth changes much, the others nothing
        ([0.0, 1.0, 2.0, 3.0], True),
    ],
)
def test_when_a_training_has_come_to_nothing(defective, is_nothing):
    measure = object.__new__(gradient._Missed)
    measure._scores = lambda: (np.array([0.0, 1, 2, 3]), np.array(defective))
    if is_nothing:
        with pytest.raises(TrainingError, match="no more often than by chance"):
            measure.check(np.arange(4))
    else:
        measure.check(np.arange(4))
