"""The formulas of rd, simplenet and cfa, their options, and the noise of simplenet."""

import numpy as np
import pytest
from begun import FRAMING, PADDED, begun
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, OptionError
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.methods.gradient import Batches
from anomaly_ad.methods.perlin import perlin_mask, perlin_noise
from anomaly_ad.methods.standard import Standard


@pytest.mark.parametrize("framing", [FRAMING, PADDED], ids=["whole", "padded"])
def test_channels_are_standardised_over_what_counts(framing):
    detector, found = begun("simplenet", framing)
    values, shares = detector.standard(found), detector.standard.shares(np, found)
    counted = values.reshape(-1, values.shape[-1])
    if shares is not None:
        counted = counted[shares.ravel() > 0]
    np.testing.assert_allclose(counted.mean(axis=0), 0, atol=1e-3)
    assert np.median(counted.std(axis=0)) == pytest.approx(1, abs=0.01)


def test_the_map_of_rd_is_the_sum_of_angles():
    detector, found = begun("rd")
    maps = [standard(found) for standard in detector.standards]
    rebuilt = detector.networks["decoder"](maps, training=False)
    expected = 0
    for standard, wanted, own in zip(
        detector.standards, maps, map(np.asarray, rebuilt), strict=True
    ):
        lengths = np.linalg.norm(wanted, axis=-1) * np.linalg.norm(own, axis=-1)
        expected = expected + standard.head(np, 1 - (wanted * own).sum(axis=-1) / lengths)
    received = detector.outputs(found)
    np.testing.assert_allclose(received["anomaly_map"], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(received["score"], expected.max(axis=(1, 2)), rtol=1e-3)

    # Each layer counts in deviations of its angles in good images.
    unscaled = [np.asarray(values) for values in detector._angles(found)]
    for values, angle in zip(unscaled, detector.angles, strict=True):
        Standard.learn([angle], [{angle.name: values[..., None]}])
    heads = [standard.head for standard in detector.standards]
    expected = sum(
        head(np, values / values.std(ddof=1)) for head, values in zip(heads, unscaled, strict=True)
    )
    received = detector.outputs(found)
    np.testing.assert_allclose(received["anomaly_map"], expected, rtol=1e-3)
    loss = sum(
        np.mean(
            [
                1 - np.vdot(w, o) / np.sqrt(np.vdot(w, w) * np.vdot(o, o))
                for w, o in zip(a, b, strict=True)
            ]
        )
        for a, b in zip(maps, map(np.asarray, rebuilt), strict=True)
    )
    assert float(detector.batch_loss(found, None, training=False)) == pytest.approx(loss, rel=1e-3)


def test_rd_refuses_layers_that_do_not_halve():
    for layers in (["stage4", "stage2"], ["stage0", "stage1", "stage2", "stage4"]):
        with pytest.raises(OptionError, match="each with half of the cells"):
            begun("rd", layers=layers)


def test_the_map_of_cfa_is_softmin_times_distance():
    detector, found = begun("cfa")
    descriptors = np.asarray(detector.descriptors(found, training=False)[0])
    np.testing.assert_allclose(
        detector.centres, descriptors.mean(axis=0).reshape(detector.centres.shape), atol=1e-4
    )
    cells = descriptors.reshape(len(descriptors), -1, descriptors.shape[-1])
    squared = np.square(cells[:, :, None] - detector.centres).mean(axis=-1)
    distances = np.sqrt(np.sort(squared, axis=-1) + 1e-6)
    three = np.exp(-distances[..., :3])
    expected = detector.head(np, three[..., 0] / three.sum(axis=-1) * distances[..., 0])
    received = detector.outputs(found)["anomaly_map"]
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)
    nearest = np.sort(squared, axis=-1)
    loss = 1000 * np.maximum(nearest[..., :3] - 1e-10, 0).mean()
    assert float(detector.batch_loss(found, None, training=False)) == pytest.approx(loss, rel=1e-3)


def test_centres_of_places_that_never_count_are_usual_ones():
    detector, found = begun("cfa", PADDED)
    shares = detector.standard.shares(np, found)[0].ravel()
    outside = detector.centres[shares == 0]
    assert len(outside) and (outside == outside[0]).all() and np.isfinite(detector.centres).all()


@pytest.mark.parametrize("noise_in", ["everywhere", "patches"])
def test_simplenet_gets_noise_of_its_width_where_it_should(noise_in):
    detector, found = begun("simplenet", noise=0.3, noise_in=noise_in)
    items = FeatureSet({name: values[:, None] for name, values in found.items()})
    batches = detector.batches(items)
    batch = batches[0]
    assert batch["features"].shape == batch["noise"].shape
    mask = batch["mask"][..., 0] > 0
    assert (batch["noise"][~mask] == 0).all()
    assert batch["noise"][mask].std() == pytest.approx(0.3, rel=0.05)
    assert mask.all() if noise_in == "everywhere" else 0 < mask.mean() < 0.9
    again = detector.batches(items)
    np.testing.assert_array_equal(again[0]["noise"], batch["noise"])
    again.begin(1)
    assert (again[0]["noise"] != batch["noise"]).any()


def test_the_loss_of_simplenet_is_the_truncated_l1_loss():
    detector, found = begun("simplenet")
    items = FeatureSet({name: values[:, None] for name, values in found.items()})
    batch = detector.batches(items)[0]
    adapted = np.asarray(detector.networks["adaptor"](detector.standard(batch)))
    answer = detector.networks["discriminator"]
    good, odd = np.asarray(answer(adapted)), np.asarray(answer(adapted + batch["noise"]))
    expected = (np.maximum(0, 0.5 + good).mean() + np.maximum(0, 0.5 - odd).mean()) / 2
    loss = detector.batch_loss(batch, None, training=False)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("option", [{"noise": 0}, {"noise_in": "nowhere"}, {"blur": -1}])
def test_options_out_of_range(option):
    with pytest.raises(OptionError, match=next(iter(option))):
        AD("simplenet", **option)


def test_an_epoch_shows_few_images_several_times():
    items = FeatureSet({"features": np.arange(6, dtype=np.float32).reshape(6, 1, 1)})
    batches = Batches(items, 4, seed=0, least=16)
    shown = np.concatenate([batches[n]["features"].ravel() for n in range(len(batches))])
    assert sorted(shown) == sorted([*range(6)] * 3)
    assert len(Batches(items, 4, seed=0, least=3)) == 2


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.integers(0, 3), st.integers(0, 99)
)
def test_perlin_noise_is_bounded_smooth_and_zero_at_the_corners_of_its_cells(h, w, a, b, seed):
    rng = np.random.default_rng(seed)
    noise = perlin_noise((h, w), (2**a, 2**b), rng)
    assert noise.shape == (h, w) and np.abs(noise).max() <= 1.01
    mask = perlin_mask((h, w), rng)
    assert mask.shape == (h, w) and mask.any()
