"""When a training by gradient ends, and what it says of the time left."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad.methods import plateau
from anomaly_ad.methods.plateau import (
    MISSED,
    Course,
    Reached,
    counted,
    expected_end,
    halvings,
    is_over,
    window,
)

losses = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80)


def ends_at(curve, epochs):
    """The epoch after which training ends."""
    return next((n for n in range(1, epochs) if is_over(curve[:n], epochs)), epochs)


@given(losses, st.integers(1, 200))
@example([0.0, -5e-324], 1)
def test_the_expected_end_lies_between_now_and_the_last_epoch(curve, more):
    epochs = len(curve) + more
    assert len(curve) <= expected_end(curve, epochs) <= epochs


@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=80),
    st.integers(1, 200),
    st.sampled_from([0.25, 2, 64]),
    st.integers(-1000, 1000),
)
def test_the_unit_and_the_zero_of_a_loss_do_not_matter(curve, more, unit, zero):
    epochs = len(curve) + more
    other = [unit * loss + zero for loss in curve]
    assert is_over(curve, epochs) == is_over(other, epochs)
    assert expected_end(curve, epochs) == expected_end(other, epochs)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_passed_over(odd):
    curve = [0.1 + 0.5 / n for n in range(1, 76)]
    end = ends_at(curve, 75)
    assert ends_at([odd, odd, *curve[:-2]], 75) == end + 2
    assert expected_end([odd, odd, *curve[:20]], 75) == expected_end(curve[:20], 75) + 2
    holed = [odd if n in (5, 40) else loss for n, loss in enumerate(curve)]
    assert ends_at(holed, 75) == end
    assert ends_at([odd] * 75, 75) == expected_end([odd] * 9, 75) == 75


def test_epochs_that_tell_no_defect_yet_do_not_count():
    # Few images are monitored: the first epochs look better than 0.975 by luck at times.
    by_chance = [0.948, 0.99, 1.0, 0.975, float("nan"), 0.9] * 4
    assert counted(MISSED, by_chance) == []
    assert counted(MISSED, [*by_chance, 0.7, 0.97, 0.5]) == [0.7, 0.97, 0.5]
    assert counted("val_loss", by_chance) == by_chance
    assert not is_over(counted(MISSED, by_chance), 40)
    assert halvings(counted(MISSED, by_chance), 4) == 0
    assert is_over(counted(MISSED, [*by_chance, 0.7, *[0.7] * window(40)]), 40)


def test_training_goes_on_while_something_is_gained_and_ends_when_nothing_is():
    falling = [1 - 0.01 * n for n in range(75)]
    assert ends_at(falling, 75) == 75
    flat = [1, 0.5, 0.2, *[0.1 + 1e-5 * n for n in range(72)]]
    assert ends_at(flat, 75) == 4 + window(75)
    assert ends_at([1.0] * 75, 75) == 1 + window(75)
    assert ends_at([1 + n for n in range(75)], 75) == 1 + window(75)  # it only gets worse
    assert ends_at([-loss for loss in flat], 75) == 1 + window(75)


@pytest.mark.parametrize("epochs", [60, 150, 400])
def test_the_expected_end_of_a_usual_curve_is_near_the_true_one(epochs):
    curve = [0.1 + 0.5 / n for n in range(1, epochs + 1)]
    true = ends_at(curve, epochs)
    for seen in (2, 5, 20):
        assert expected_end(curve[:seen], epochs) == pytest.approx(true, abs=0.05 * true)
    assert true < epochs or epochs == 60


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(plateau, "time", clock)
    return clock


def run(callback, clock, curve, batches=5, batch=2.0, compiling=100.0):
    """Epochs of `batches` batches of `batch` seconds; the very first takes `compiling` more."""
    callback.set_model(keras.Sequential())
    callback.model.stop_training = False
    callback.on_train_begin()
    for epoch, loss in enumerate(curve):
        for number in range(batches):
            clock.now += batch + (compiling if epoch == number == 0 else 0)
            callback.on_train_batch_end(number)
        callback.on_epoch_end(epoch, {"loss": 2 * loss, "val_loss": loss})
        if callback.model.stop_training:
            return


def test_what_is_said_after_each_epoch(clock):
    notes = []
    run(Course("val_loss", 75, notes.append), clock, [0.1 + 0.5 / n for n in range(1, 76)])
    # 74 epochs of 10 s and a tenth for what comes with them; what is compiled once does not count.
    assert notes[0] == "loss 1.2000, val_loss 0.6000, at most about 14 min left"
    both = "at most about 12 min left, 10 min at the present rate of improvement"
    assert notes[1] == f"loss 0.7000, val_loss 0.3500, {both}"  # 73 epochs; those up to the 63rd
    last = 0.1 + 0.5 / len(notes)
    assert notes[-1] == f"loss {2 * last:.4f}, val_loss {last:.4f}"


def test_training_is_stopped_when_nothing_is_gained(clock):
    notes = []
    callback = Course("val_loss", 75, notes.append)
    run(callback, clock, [1.0, 0.5, *[0.4] * 73])
    assert callback.model.stop_training and len(notes) == 3 + window(75)
    assert notes[-1] == "loss 0.8000, val_loss 0.4000"


def test_what_tells_no_defect_yet_neither_ends_a_training_nor_lowers_its_rate(clock):
    figures = [*[0.975] * 20, 0.9, 0.5, *[0.4] * 30]
    callback = Course(MISSED, 60, lambda line: None, rate=1.0, measure=iter(figures).__next__)
    run(callback, clock, [1.0] * len(figures))
    assert len(callback.losses) == 23 + window(60) and callback.model.stop_training
    optimizer = SimpleNamespace(learning_rate=0.0)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.reached = Reached({MISSED: figures[:20]}, [], [])
    callback.on_epoch_begin(20)
    assert optimizer.learning_rate == 1.0
    callback.reached = Reached({MISSED: figures[:28]}, [], [])
    callback.on_epoch_begin(28)
    assert optimizer.learning_rate == 0.5


def test_an_epoch_of_one_batch_is_measured_as_a_whole(clock):
    notes = []
    run(Course("val_loss", 4, notes.append), clock, [3.0, 2.0, 1.0], 1, 3.0, 0.0)
    assert notes[0] == "loss 6.0000, val_loss 3.0000, at most about 9 s left"
    assert np.isfinite(expected_end([3.0], 4))


def test_the_rate_is_halved_each_time_that_so_many_epochs_bring_nothing():
    assert halvings([1.0, 0.9, 0.8], 2) == 0
    assert halvings([1.0, 1.0, 1.0], 2) == 1
    assert halvings([1.0, 1.0, 1.0, 1.0, 1.0], 2) == 2
    assert halvings([1.0, 1.0, 0.5, 0.6, 0.4, 0.4, 0.4], 2) == 1
    assert halvings([np.nan, np.nan, 1.0], 2) == 1
