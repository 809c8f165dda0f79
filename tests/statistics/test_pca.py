"""Principal components: against scikit-learn on data that is shifted and scaled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.statistics.moments import Moments
from anomaly_ad.statistics.pca import Subspace


def vectors(count, seed=0, channels=8):
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(channels, channels)) * np.geomspace(10, 0.1, channels)[:, None]
    return (5 + random.normal(size=(count, channels)) @ mixing).astype(np.float32)


def moments_of(data):
    return Moments(1, data.shape[1]).update(data[:, None])


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_components_are_those_of_scikit_learn(share):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs the extra 'eval'")
    data, others = vectors(200), vectors(30, 1)
    expected = decomposition.PCA(n_components=share, svd_solver="full").fit(data.astype(np.float64))
    subspace = Subspace.of(moments_of(data), share)
    np.testing.assert_allclose(subspace.mean, expected.mean_, rtol=1e-5)
    np.testing.assert_allclose(subspace.variances, expected.explained_variance_, rtol=1e-4)
    left_over = (1 - share) * np.cov(data.T.astype(np.float64)).trace()
    np.testing.assert_allclose(
        subspace.residual * (8 - subspace.basis.shape[1]), left_over, rtol=1e-3
    )
    outside, inside = subspace.errors(others)
    inner = expected.transform(others)
    left = others - expected.inverse_transform(inner)
    np.testing.assert_allclose(outside, np.square(left).sum(axis=1), rtol=1e-3, atol=1e-4)
    mahalanobis = (np.square(inner) / expected.explained_variance_).sum(axis=1)
    np.testing.assert_allclose(inside, mahalanobis, rtol=1e-3)
    # The density of probabilistic PCA falls with the squared distance that DFM takes as its score.
    expected.noise_variance_ = subspace.residual
    density = expected.score_samples(others.astype(np.float64))
    # In scikit-learn's density the directions inside the subspace have the same variances.
    constant = density + (inside + outside / subspace.residual) / 2
    np.testing.assert_allclose(constant, constant.mean(), rtol=1e-3)


def test_the_distance_does_not_jump_where_few_vectors_need_every_direction():
    """With ever more vectors than needed for the share the residual stays what was asked for."""
    residuals = []
    for count in range(4, 40):
        data = vectors(count, channels=30)
        total = data.var(axis=0, ddof=1).sum()
        subspace = Subspace.of(moments_of(data), 0.97)
        residuals.append(subspace.residual * (30 - subspace.basis.shape[1]) / total)
    np.testing.assert_allclose(residuals, 0.03, rtol=1e-3)


@given(st.integers(2, 9), st.integers(0, 50), st.floats(0.5, 0.9999))
@settings(max_examples=60, deadline=None)
def test_fewer_vectors_than_channels_give_finite_positive_results(count, seed, share):
    subspace = Subspace.of(moments_of(vectors(count, seed)), share)
    assert 1 <= subspace.basis.shape[1] <= count - 1
    assert (subspace.variances > 0).all() and subspace.residual > 0
    gram = subspace.basis.T @ subspace.basis
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-5)
    assert all(np.isfinite(values).all() for values in subspace.errors(vectors(5, seed + 1)))


@pytest.mark.parametrize("count", [2, 10, 29, 30, 31, 100])
def test_vectors_at_hand_have_the_components_of_their_moments(count):
    data, others = vectors(count, channels=30), vectors(5, 1, channels=30)
    times = np.arange(1, count + 1) % 3 + 1
    found = Subspace.of_vectors(data, times, 0.95)
    expected = Subspace.of(moments_of(np.repeat(data, times, axis=0)), 0.95)
    assert found.basis.shape == expected.basis.shape and found.basis.dtype == np.float32
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(found.variances, expected.variances, rtol=1e-4)
    assert found.residual == pytest.approx(expected.residual, rel=1e-4)
    for some, wanted in zip(found.errors(others), expected.errors(others), strict=True):
        np.testing.assert_allclose(some, wanted, rtol=1e-3)


def test_vectors_at_hand_that_are_all_the_same():
    data = np.full((3, 8), 7, np.float32)
    subspace = Subspace.of_vectors(data, np.ones(3, np.int64), 0.9)
    outside, inside = subspace.errors(np.stack([data[0], data[0] + 1]))
    assert outside[0] == inside[0] == 0
    assert np.isfinite([*outside, *inside]).all() and outside[1] + inside[1] > 0


def test_vectors_that_are_all_the_same():
    subspace = Subspace.of(moments_of(np.full((5, 8), 7, np.float32)), 0.9)
    outside, inside = subspace.errors(np.stack([np.full(8, 7.0), np.full(8, 8.0)]))
    assert outside[0] == inside[0] == 0
    assert np.isfinite([*outside, *inside]).all() and outside[1] + inside[1] > 0
