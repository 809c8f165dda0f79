"""Kernel density: against SciPy and scikit-learn on data that is shifted and scaled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.statistics.density import RULES, KernelDensity


def points(count, channels, shift=5.0, scale=10.0, seed=0):
    """Correlated Gaussian vectors; the default mean and deviation are those of raw features."""
    mixing = np.eye(channels) + 0.3 * np.random.default_rng(99).normal(size=(channels, channels))
    return shift + scale * np.random.default_rng(seed).normal(size=(count, channels)) @ mixing


@pytest.mark.parametrize("rule", ["scott", "silverman", 0.4])
@pytest.mark.parametrize("scale", [1e-2, 10, 1e3])
@pytest.mark.parametrize("shift", [0, 5, -300])
@pytest.mark.parametrize("channels", [1, 2, 7, 16])
def test_log_densities_are_those_of_scipy(channels, shift, scale, rule):
    stats = pytest.importorskip("scipy.stats", reason="needs the extra 'eval'")
    data = points(150, channels, shift, scale)
    others = shift + 3 * (points(40, channels, shift, scale, seed=1) - shift)
    before = data.copy(), others.copy()
    received = KernelDensity.of(data, rule).log_density(others)
    np.testing.assert_array_equal(data, before[0])  # a density that standardises in place would
    np.testing.assert_array_equal(others, before[1])  # make the next call wrong
    expected = stats.gaussian_kde(data.T, bw_method=rule).logpdf(others.T)
    np.testing.assert_allclose(received, expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 5])
def test_log_densities_are_those_of_scikit_learn(channels):
    neighbors = pytest.importorskip("sklearn.neighbors", reason="needs the extra 'eval'")
    data, others = points(150, channels), points(40, channels, seed=1)
    density = KernelDensity.of(data, 0.7)
    reference = neighbors.KernelDensity(bandwidth=0.7).fit(density.points)
    standard = (others - density.mean) @ density.whitening.T
    volume = np.linalg.slogdet(density.whitening)[1]
    expected = reference.score_samples(standard) + volume
    np.testing.assert_allclose(density.log_density(others), expected, rtol=1e-6)
    np.testing.assert_allclose(np.cov(density.points.T), np.eye(channels).squeeze(), atol=1e-9)


@pytest.mark.slow
def test_cross_validation_chooses_as_scikit_learn_does():
    """Two heaps far apart, where the rules for one Gaussian are far too wide."""
    selection = pytest.importorskip("sklearn.model_selection", reason="needs the extra 'eval'")
    neighbors = pytest.importorskip("sklearn.neighbors", reason="needs the extra 'eval'")
    data = np.concatenate([points(40, 2, 0, 1), points(40, 2, 100, 1, seed=1)])
    scott, chosen = KernelDensity.of(data, "scott"), KernelDensity.of(data, "cross_validation")
    widths = scott.bandwidth * np.geomspace(0.1, 10, 41)
    search = selection.GridSearchCV(
        neighbors.KernelDensity(), {"bandwidth": widths}, cv=selection.LeaveOneOut()
    )
    expected = search.fit(scott.points).best_params_["bandwidth"]
    assert chosen.bandwidth == pytest.approx(expected)
    assert chosen.bandwidth < scott.bandwidth / 2


def test_what_is_far_from_all_points_has_a_density_too():
    density = KernelDensity.of(points(50, 3))
    near, far, farther = density.log_density(np.array([[5.0] * 3, [1e6] * 3, [2e6] * 3]))
    assert near > far > farther and np.isfinite(farther)


@pytest.mark.parametrize("constant", [0.0, 7.0])
@pytest.mark.parametrize("rule", RULES)
def test_a_feature_that_never_varies_is_no_error_and_leaving_it_counts(rule, constant):
    data = points(60, 3)
    data[:, 1] = constant
    density = KernelDensity.of(data, rule)
    inside, outside = data[:2].copy(), data[:2].copy()
    outside[:, 1] += 0.1
    assert np.isfinite(density.log_density(inside)).all()
    assert (density.log_density(outside) < density.log_density(inside) - 100).all()


def test_two_equal_points_have_a_density():
    density = KernelDensity.of(np.ones((2, 3)))
    assert np.isfinite(density.log_density(np.ones((1, 3)))).all()


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match=r"scott, silverman, cross_validation.*'wide'"):
        KernelDensity.of(points(20, 2), "wide")


@given(
    st.integers(2, 40), st.integers(1, 5), st.floats(0.01, 100), st.floats(-100, 100), st.integers()
)
@settings(max_examples=60, deadline=None)
def test_units_and_offsets_do_not_matter(count, channels, scale, shift, seed):
    """p(a x + b) = p(x) / |a|: the density moves with its data."""
    data = np.random.default_rng(abs(seed)).normal(size=(count + channels, channels))
    first = KernelDensity.of(data).log_density(data)
    second = KernelDensity.of(scale * data + shift).log_density(scale * data + shift)
    np.testing.assert_allclose(second + channels * np.log(scale), first, rtol=1e-5, atol=1e-5)


def test_the_density_integrates_to_one():
    density = KernelDensity.of(points(30, 1))
    axis = np.linspace(-200, 200, 20_001)
    assert np.exp(density.log_density(axis[:, None])).sum() * (axis[1] - axis[0]) == pytest.approx(
        1, abs=1e-6
    )


@pytest.mark.parametrize("scale", [0.1, 10, 1e3])
@pytest.mark.parametrize("shift", [0, 5])
@pytest.mark.parametrize("channels", [1, 7, 64])
def test_the_converted_layer_is_the_formula(channels, shift, scale):
    keras = pytest.importorskip("keras", reason="training needs the extra 'train'")
    import openvino as ov

    from anomaly_ad.layers.density import LogDensity
    from anomaly_ad.runtime.convert import to_openvino

    density = KernelDensity.of(points(150, channels, shift, scale))
    images = keras.Input((channels,), dtype="uint8")  # as every graph has
    vectors = shift + scale * (keras.ops.cast(images, "float32") - 128) / 20
    graph = keras.Model(images, {"score": LogDensity(**vars(density))(vectors)})
    codes = np.random.default_rng(1).integers(0, 256, (40, channels), np.uint8)
    expected = density.log_density(shift + scale * (codes.astype(np.float64) - 128) / 20)
    model = ov.compile_model(to_openvino(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(model(codes)["score"], expected, rtol=1e-4)
    np.testing.assert_allclose(graph(codes)["score"], expected, rtol=1e-4)
