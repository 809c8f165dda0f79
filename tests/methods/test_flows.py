"""Normalising flows: their volume and their inverse; the maps of fastflow, cflow and stfpm."""

import keras
import numpy as np
import pytest
from begun import begun
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, OptionError
from anomaly_ad.methods.cflow import position_code
from anomaly_ad.methods.flows import Flow, improbability, log_density
from anomaly_ad.methods.registry import detector_class

SHAPE = (2, 3, 5)


def flow_of(name, layers=("stage2", "stage4"), spread=0.2):
    """The coarsest flow of a method, its weights drawn, as those of one that has learnt."""
    detector, _ = begun(name, layers=list(layers), steps=3)
    flow = detector.flows[-1]
    random = np.random.default_rng(0)
    for network in flow.subnets:
        network.set_weights([random.normal(0, spread, w.shape) for w in network.get_weights()])
    return detector, flow


@pytest.fixture
def double():
    usual = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(usual[0])
    keras.config.set_dtype_policy(usual[1])


@pytest.mark.parametrize("name", ["fastflow", "cflow"])
def test_the_log_determinant_is_that_of_the_numerical_jacobian(name, double):
    method = detector_class(name).__new__(detector_class(name))
    flow = Flow(SHAPE, method.subnets(SHAPE, iter(range(99))), steps=4, clamp=method.clamp)
    random = np.random.default_rng(3)
    for network in flow.subnets:
        network.set_weights([random.normal(0, 0.3, w.shape) for w in network.get_weights()])
    x = random.normal(size=SHAPE)
    size, step = x.size, 1e-6
    moved = x[None] + np.concatenate([np.eye(size), -np.eye(size)]).reshape(-1, *SHAPE) * step
    z = np.asarray(flow.model(moved)[0], np.float64).reshape(2, size, size)
    _, expected = np.linalg.slogdet((z[0] - z[1]) / (2 * step))
    log_determinant = np.asarray(flow.model(x[None])[1])
    assert log_determinant.shape == (1, *SHAPE[:2])
    assert abs(log_determinant).min() > 1e-3
    assert log_determinant.sum() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", ["fastflow", "cflow"])
def test_the_inverse_undoes_a_flow(name):
    detector, flow = flow_of(name, spread=0.03)
    x = np.random.default_rng(1).normal(size=(2, *detector.shapes[-1])).astype(np.float32)
    z = flow.model(x)[0]
    assert np.abs(np.asarray(z) - x).max() > 0.1
    np.testing.assert_allclose(flow.inverse(z), x, atol=1e-5)


@pytest.mark.parametrize("name", ["fastflow", "cflow"])
def test_a_flow_begins_as_a_permutation(name):
    detector, found = begun(name)
    for standard, flow in zip(detector.standards, detector.flows, strict=True):
        x = standard(found)
        z, log_determinant = map(np.asarray, flow.model(x))
        np.testing.assert_allclose(np.sort(z, axis=-1), np.sort(x, axis=-1), rtol=1e-5, atol=1e-6)
        assert not np.allclose(z, x) and not log_determinant.any()


@given(st.integers(2, 6), st.integers(0, 99))
@settings(deadline=None)
def test_the_density_is_that_of_the_gaussian_that_a_vector_is_scaled_to(channels, seed):
    random = np.random.default_rng(seed)
    mean, scale = random.normal(size=channels), random.uniform(0.2, 4, channels)
    x = random.normal(size=(3, 2, 2, channels))
    z = (x - mean) / scale
    received = log_density(z, np.full((3, 2, 2), -np.log(scale).sum()))
    np.testing.assert_allclose(received, norm.logpdf(x, mean, scale).sum(axis=-1), rtol=1e-4)
    expected = 1 / (1 + np.exp(np.asarray(received) / channels))
    np.testing.assert_allclose(improbability(received, channels), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["fastflow", "cflow"])
def test_the_map_is_the_mean_of_those_of_the_layers(name):
    detector, found = begun(name, layers=["stage2", "stage4"], steps=3)
    densities = [np.asarray(d) for d in detector.log_densities(found, training=False)]
    maps = [
        standard.head(np, 1 / (1 + np.exp(density / shape[2])))
        for standard, density, shape in zip(
            detector.standards, densities, detector.shapes, strict=True
        )
    ]
    received = detector.outputs(found)
    expected = (maps[0] + maps[1]) / 2
    np.testing.assert_allclose(received["anomaly_map"], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(received["score"], expected.max(axis=(1, 2)), rtol=1e-3)
    per_cell = {"fastflow": lambda p, c: -p, "cflow": lambda p, c: np.log1p(np.exp(-p / c))}[name]
    loss = sum(
        per_cell(p, shape[2]).mean() for p, shape in zip(densities, detector.shapes, strict=True)
    )
    assert float(detector.batch_loss(found, None, training=False)) == pytest.approx(loss, rel=1e-3)


def test_what_is_around_a_cell_counts_for_fastflow_and_where_it_is_for_cflow():
    cells = np.random.default_rng(0).normal(size=(1, 4, 4, 112)).astype(np.float32)
    other = cells.copy()
    other[0, 1, 2] += 1
    alike = np.broadcast_to(cells[:, :1, :1], cells.shape)

    for name, sees in (("fastflow", True), ("cflow", False)):
        flow = flow_of(name, ["stage4"])[1]
        first, second, third = (np.asarray(flow.model(x)[1])[0] for x in (cells, other, alike))
        assert (first[1, 1] != second[1, 1]) == sees and first[1, 2] != second[1, 2]
    assert len(np.unique(third.round(4))) == third.size  # to cflow each place is its own


def test_places_have_codes_of_their_own():
    codes = position_code(64)
    assert codes.shape == (64, 64) and np.abs(codes).max() <= 1
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=-1)
    assert distances[~np.eye(64, dtype=bool)].min() > 0.5


@pytest.mark.parametrize("name", ["fastflow", "cflow"])
@pytest.mark.parametrize("steps", [0, 33, 2.5])
def test_the_number_of_couplings_is_bounded(name, steps):
    with pytest.raises(OptionError, match="steps"):
        AD(name, steps=steps)


def test_the_map_of_stfpm_is_the_geometric_mean_of_the_distances():
    layers = ["stage2", "stage4", "stage5"]
    detector, found = begun("stfpm", layers=layers)
    student = [np.asarray(m) for m in detector.networks["student"](found["images"])]
    product, loss = 1, 0
    for standard, own in zip(detector.standards, student, strict=True):
        wanted = standard(found)
        a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (wanted, own))
        cells = np.square(a - b).sum(axis=-1) / 2
        product, loss = product * standard.head(np, cells), loss + cells.mean()
    received = detector.outputs(found)
    np.testing.assert_allclose(received["anomaly_map"], np.cbrt(product), rtol=1e-3, atol=1e-4)
    assert float(detector.batch_loss(found, None, training=False)) == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("layers", [["stage4", "stage2"], ["stage2", "stage1"]])
def test_stfpm_refuses_layers_from_the_coarsest_to_the_finest(layers):
    with pytest.raises(OptionError, match="from the finest to the coarsest"):
        begun("stfpm", layers=layers)


def test_layers_of_one_grid_can_be_taken_together():
    detector, found = begun("stfpm", layers=["stage3", "stage4"])
    assert len(detector.outputs(found)["score"]) == len(found["images"])
