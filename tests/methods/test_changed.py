"""Methods that are trained on changed images, or on images alone: draem, efficientad, ganomaly."""

import warnings

import numpy as np
import pytest
from begun import FRAMING, PADDED, begun
from conftest import draw_part
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

import tensorflow as tf

from anomaly_ad.images import ImageSet
from anomaly_ad.methods.base import Defects
from anomaly_ad.methods.draem import with_foreign
from anomaly_ad.methods.efficientad import jittered
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.methods.gradient import Batches
from anomaly_ad.methods.places import Places
from anomaly_ad.runtime import Engine
from anomaly_ad.runtime.convert import to_openvino


def ready(name, framing=FRAMING, **options):
    """A detector that draws batches, and the set they are drawn from."""
    detector, found = begun(name, framing, **options)
    detector.engine = Engine(to_openvino(detector.frozen()))
    return detector, FeatureSet({key: values[:, None] for key, values in found.items()})


def image_of(seed, size=(48, 40), channels=3):
    return np.random.default_rng(seed).integers(60, 200, (*size, channels), np.uint8)


@given(st.integers(0, 500), st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=60)
def test_what_is_marked_as_foreign_differs_and_the_rest_stays(seed, channels):
    image, other = (image_of(seed + n, channels=channels) for n in range(2))
    before = image.copy(), other.copy()
    changed, mask = with_foreign(image, other, np.random.default_rng(seed))
    again, same = with_foreign(image, other, np.random.default_rng(seed))
    assert changed.shape == image.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, again)
    np.testing.assert_array_equal(mask, same)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(other, before[1])
    differs = np.abs(changed.astype(int) - image).max(axis=-1)
    assert (differs[mask] >= 7).all() and (differs[~mask] <= 8).all()


@pytest.mark.parametrize("framing", [FRAMING, PADDED], ids=["whole", "padded"])
def test_draem_sees_half_of_the_images_changed_and_marks_what_is(framing):
    detector, items = ready("draem", framing)
    stored = items[slice(0, 6)]
    n_changed = n_seen = 0
    for epoch in range(2):
        batches = detector.batches(items)
        batches.begin(epoch)
        for index in range(4):
            batch, plain = batches[index], batches.chosen(index)
            for n, image in enumerate(batch["images"]):
                is_changed = bool((image != plain["images"][n]).any())
                n_seen, n_changed = n_seen + 1, n_changed + is_changed
                assert is_changed or not batch["mask"][n].any()
                if "inside" in plain:
                    outside = plain["inside"][n] == 0
                    np.testing.assert_array_equal(image[outside], plain["images"][n][outside])
                same = np.allclose(batch["map_0"][n], plain["map_0"][n], atol=1e-3)
                assert same != is_changed
    assert 0.3 < n_changed / n_seen < 0.7
    np.testing.assert_array_equal(items[slice(0, 6)]["images"], stored["images"])
    batches.begin(0)
    again = detector.batches(items)
    np.testing.assert_array_equal(again[2]["mask"], batches[2]["mask"])


def test_the_loss_of_draem_is_the_focal_loss_and_its_map_the_logarithm_of_a_probability():
    detector, items = ready("draem")
    batch = detector.batches(items)[0]
    logits = np.asarray(detector.answers(batch, training=False))
    odd = 1 / (1 + np.exp(-logits))
    right = np.where(batch["mask"] > 0, odd, 1 - odd)
    expected = np.mean(-((1 - right) ** 2) * np.log(right))
    loss = detector.batch_loss(batch, None, training=False)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    cells = -np.log(1 - odd[..., 0])
    received = detector.outputs(batch)["anomaly_map"]
    expected = detector.standards[0].head(np, cells)
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-5)


def test_efficientad_changes_colours_only_where_an_image_counts():
    detector, items = ready("efficientad", PADDED)
    batch = detector.batches(items)[0]
    differs = (batch["images"] != batch["jittered_images"]).any(axis=-1)
    assert differs.any() and not differs[batch["inside"] == 0].any()


@given(st.integers(0, 500), st.sampled_from([1, 3]))
def test_colours_are_changed_by_a_factor_at_most(seed, channels):
    image = image_of(seed, channels=channels)
    changed = jittered(image, np.random.default_rng(seed))
    assert changed.shape == image.shape and changed.dtype == np.uint8
    # Of brightness that is a fifth of the value, of contrast and saturation of the difference.
    assert np.abs(changed.astype(float) - image).max() <= 0.2 * 200 + 1


@pytest.mark.parametrize("framing", [FRAMING, PADDED], ids=["whole", "padded"])
def test_the_map_of_efficientad_is_half_of_what_both_differences_exceed(framing):
    detector, items = ready("efficientad", framing)
    detector.learn_after(items, items)
    batch = items[slice(0, 6)]
    channels = detector.shape[2]
    student = np.asarray(detector.networks["student"](batch["images"]))
    teacher = np.asarray(detector.standard(batch))
    rebuilt = np.asarray(detector.networks["autoencoder"](teacher))
    pairs = (teacher, student[..., :channels]), (rebuilt, student[..., channels:])
    shares = detector.standard.shares(np, batch)
    counts = np.ones(student.shape[:3], bool) if shares is None else shares[..., 0] > 0
    cells = np.zeros(student.shape[:3])
    for one, other in pairs:
        values = np.where(counts, np.square(one - other).mean(axis=-1), np.nan)
        with np.errstate(all="ignore"):
            mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        z = (values - mean) / (deviation + np.nanmean(deviation))
        cells += np.maximum(np.nan_to_num(z), 0) / 2
    out = detector.outputs(batch)
    flat = np.sort(np.where(counts, cells, 0).reshape(len(cells), -1))
    count = max(1, round(0.01 * flat.shape[1]))
    np.testing.assert_allclose(out["score"], flat[:, -count:].mean(axis=1), rtol=0.02, atol=1e-3)
    if shares is None:
        expected = detector.head(np, cells.astype(np.float32))
        np.testing.assert_allclose(out["anomaly_map"], expected, rtol=0.02, atol=2e-3)


@given(st.integers(0, 500), st.booleans())
def test_what_is_usual_at_each_place(seed, is_partial):
    random = np.random.default_rng(seed)
    values = random.gamma(2.0, size=(12, 5, 4)) + random.uniform(0, 3, (5, 4))
    counted = random.random((12, 5, 4)) < 0.7 if is_partial else None
    places = Places((5, 4), "local_")
    cut = random.integers(1, 11)
    parts = [slice(0, cut), slice(cut, 12)]
    places.learn((values[p], None if counted is None else counted[p]) for p in parts)
    known = values if counted is None else np.where(counted, values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a place that never counts
        mean, deviation = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
    there = np.isfinite(mean)
    np.testing.assert_allclose(places.mean[there], mean[there], rtol=1e-4)
    np.testing.assert_allclose(places.deviation[there], deviation[there], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(places.mean[~there], mean[there].mean(), rtol=1e-4)
    assert set(places.arrays()) == {"local_mean", "local_deviation"}
    exceeded = np.asarray(places.exceeded(values.astype(np.float32)))
    assert (exceeded >= 0).all() and np.isfinite(exceeded).all()


def test_the_loss_of_efficientad_takes_the_hardest_cells():
    detector, items = ready("efficientad")
    batch = detector.batches(items)[0]
    channels = detector.shape[2]
    student = np.asarray(detector.networks["student"](batch["images"]))[..., :channels]
    hard = np.sort(np.square(detector.standard(batch) - student).reshape(len(student), -1))
    images = batch["jittered_images"]
    teacher = detector.standard({"features": batch["jittered_features"]})
    rebuilt = np.asarray(detector.networks["autoencoder"](teacher))
    own = np.asarray(detector.networks["student"](images))[..., channels:]
    count = max(1, round(0.001 * hard.shape[1]))
    expected = (
        hard[:, -count:].mean()
        + hard.mean()
        + np.square(teacher - rebuilt).mean()
        + np.square(rebuilt - own).mean()
    )
    loss = detector.batch_loss(batch, None, training=False)
    assert float(loss) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_efficientad_goes_on_as_if_it_had_not_ended():
    def views(first, count, defect=False):
        drawn = (draw_part(first + n, defect=defect, size=96) for n in range(count))
        return ImageSet(np.stack([FRAMING.views(image) for image in drawn]))

    def fit(detector, epochs):
        detector.least_per_epoch = 12
        return detector.fit(
            views(0, 12),
            validation=views(50, 6),
            epochs=epochs,
            progress=lambda _: None,
            defects=Defects(views(50, 6, True), np.arange(6)),
        )

    whole = fit(begun("efficientad")[0], 4)
    first = fit(begun("efficientad")[0], 2)
    going_on = fit(begun("efficientad")[0].restore(first.state()), 2)
    received = going_on.state()
    # Rounding decides which cells are the hardest, and which way Adam goes where a gradient
    # nearly vanishes: two steps at most.
    for name, values in whole.state().items():
        np.testing.assert_allclose(received[name], values, rtol=1e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("framing", [FRAMING, PADDED], ids=["whole", "padded"])
def test_the_score_of_ganomaly_is_the_difference_of_the_codes(framing):
    detector, items = ready("ganomaly", framing)
    batch = items[slice(0, 3)]
    pictures = batch["images"] / np.float32(127.5) - 1
    inside = batch.get("inside", np.ones(pictures.shape[:3]))[..., None]
    code = np.asarray(detector.networks["encoder"](pictures * inside))
    rebuilt = np.asarray(detector.networks["decoder"](code)) * inside
    again = np.asarray(detector.networks["second_encoder"](rebuilt))
    received = detector.outputs(batch)
    expected = np.square(code - again).mean(axis=-1)
    np.testing.assert_allclose(received["score"], expected, rtol=1e-3, atol=1e-6)
    cells = np.abs(pictures * inside - rebuilt).mean(axis=-1)
    blurred = detector.head(np, cells, batch.get("inside"))
    detector.learn_after(items, items)
    counts = inside[..., 0] > 0
    every = detector._differences(items[slice(0, 6)])[0]
    expected = np.asarray(every).mean(axis=0)  # all six count in the same places
    np.testing.assert_allclose(
        detector.places.mean[counts[0]], expected[counts[0]], rtol=1e-3, atol=1e-5
    )
    deviation = detector.places.deviation + detector.places.deviation.mean()
    expected = np.maximum(blurred - detector.places.mean, 0) / deviation * counts
    received = detector.outputs(batch)["anomaly_map"]
    np.testing.assert_allclose(received, expected, rtol=1e-2, atol=1e-3)


def test_the_losses_of_ganomaly_move_their_own_networks_only():
    detector, items = ready("ganomaly")
    batch = items[slice(0, 4)]
    networks = detector.networks
    discriminator = networks["discriminator"]
    made = [
        v.value for n in ("encoder", "decoder", "second_encoder") for v in networks[n].variables
    ]
    with tf.GradientTape(persistent=True) as tape:
        loss = detector.batch_loss(batch, None, training=False)
        pictures, rebuilt, *_ = detector._rebuilt(batch, training=False)
        real, fake = (discriminator(x)[1] for x in (pictures, tf.stop_gradient(rebuilt)))
        answers = tf.reduce_mean(tf.nn.softplus(-real) + tf.nn.softplus(fake)) / 2
        features = (discriminator(x)[0] for x in (pictures, rebuilt))
        adversarial = tf.reduce_mean(tf.square(tf.subtract(*features)))
    own = [v.value for v in discriminator.trainable_variables]
    received, expected = tape.gradient(loss, own), tape.gradient(answers, own)
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    decoder = [v.value for v in networks["decoder"].trainable_variables]
    assert any(np.abs(g).max() > 0 for g in tape.gradient(adversarial, decoder))
    assert tape.gradient(answers, made) == [None] * len(made)


def test_batches_of_images_alone_hold_what_is_stored():
    _, items = ready("ganomaly", PADDED)
    batch = Batches(items, 4)[0]
    assert batch["images"].dtype == np.uint8 and batch["inside"].shape == batch["images"].shape[:3]
