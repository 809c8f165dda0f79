"""Golden tests of the statistics of PaDiM: against scikit-learn, scipy and a naive oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import ModelError
from anomaly_ad.statistics.moments import (
    Moments,
    mahalanobis,
    mahalanobis_unseen,
    regularized,
    whitening,
)

POSITIONS, CHANNELS = 3, 6


def features(count, seed=0, mean=5.0, deviation=10.0):
    """Correlated channels, far from zero and of a large scale."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(POSITIONS, CHANNELS, CHANNELS))
    plain = random.normal(size=(count, POSITIONS, CHANNELS))
    return (mean + deviation * np.einsum("npc,pcd->npd", plain, mixing)).astype(np.float32)


def naive(data):
    mean = np.zeros(data.shape[1:])
    for vector in data:
        mean += vector / len(data)
    scatter = np.zeros((*data.shape[1:], data.shape[2]))
    for vector in data:
        for p in range(data.shape[1]):
            difference = vector[p] - mean[p]
            scatter[p] += np.outer(difference, difference)
    return mean, scatter


def same(first, second, rtol=1e-10):
    assert first.count == second.count
    np.testing.assert_allclose(first.mean, second.mean, rtol=rtol, atol=rtol * 10)
    scale = np.abs(second.scatter).max()
    np.testing.assert_allclose(first.scatter, second.scatter, rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (5, 10), (1e4, 1), (-300, 0.01)])
def test_moments_equal_a_naive_oracle_and_scikit_learn(mean, deviation):
    covariance = pytest.importorskip("sklearn.covariance", reason="needs the extra 'eval'")
    data = features(50, mean=mean, deviation=deviation)
    moments = Moments(POSITIONS, CHANNELS)
    for start in range(0, 50, 16):
        moments.update(data[start : start + 16])
    expected_mean, expected_scatter = naive(data.astype(np.float64))
    np.testing.assert_allclose(moments.mean, expected_mean, rtol=1e-12)
    np.testing.assert_allclose(moments.scatter, expected_scatter, rtol=1e-6)
    for p in range(POSITIONS):
        fitted = covariance.EmpiricalCovariance().fit(data[:, p].astype(np.float64))
        np.testing.assert_allclose(moments.mean[p], fitted.location_, rtol=1e-10)
        np.testing.assert_allclose(moments.covariance()[p] * 49 / 50, fitted.covariance_, rtol=1e-6)


def test_the_distance_is_that_of_scikit_learn_where_nothing_is_regularized():
    covariance = pytest.importorskip("sklearn.covariance", reason="needs the extra 'eval'")
    data, queries = features(200), features(7, seed=1)
    moments = Moments(POSITIONS, CHANNELS).update(data)
    out = mahalanobis(queries, moments.mean, whitening(regularized(moments, 1e-9)))
    for p in range(POSITIONS):
        fitted = covariance.EmpiricalCovariance().fit(data[:, p].astype(np.float64))
        expected = np.sqrt(fitted.mahalanobis(queries[:, p]) * 199 / 200)
        np.testing.assert_allclose(out[:, p], expected, rtol=1e-3)


def test_the_regularization_is_relative_to_each_channel():
    """A channel in other units changes nothing."""
    data, queries = features(5), features(4, seed=1)
    units = np.array([1, 30, 0.1, 7, 1, 5], np.float32)
    distances = []
    for factor in (1, units):
        moments = Moments(POSITIONS, CHANNELS).update(data * factor)
        covariance = regularized(moments, 0.1)
        distances.append(mahalanobis(queries * factor, moments.mean, whitening(covariance)))
    np.testing.assert_allclose(distances[0], distances[1], rtol=1e-3)


@pytest.mark.parametrize("prior", [0, 3, 1e6])
def test_the_prior_counts_as_that_many_images_of_the_pooled_covariance(prior):
    moments = Moments(POSITIONS, CHANNELS).update(features(12))
    covariance = moments.covariance()
    pooled = covariance.mean(axis=0)
    share = prior / (11 + prior)
    expected = (1 - share) * covariance + share * pooled
    diagonal = np.arange(CHANNELS)
    expected[:, diagonal, diagonal] += 0.1 * np.diag(pooled)
    np.testing.assert_allclose(regularized(moments, 0.1, prior), expected, rtol=1e-9)
    np.testing.assert_allclose(moments.covariance(), covariance)  # not changed


def test_a_prior_makes_up_for_few_images_where_positions_are_alike():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(8, 8))
    good, unseen = (
        random.normal(size=(10, 30, 8)) @ mixing,
        random.normal(size=(50, 30, 8)) @ mixing,
    )
    true = np.linalg.norm(np.linalg.solve(mixing.T, unseen[..., None])[..., 0], axis=-1)
    few = Moments(30, 8).update(good)
    plain, drawn = (
        np.abs(
            mahalanobis(unseen, few.mean, whitening(regularized(few, 1e-6, prior))) - true
        ).mean()
        for prior in (0, 20)
    )
    assert drawn < plain / 4


def test_whitening_is_the_inverse_of_the_regularized_covariance():
    moments = Moments(POSITIONS, CHANNELS).update(features(40))
    white = whitening(regularized(moments, 0.1))
    covariance = moments.covariance()
    added = 0.1 * np.einsum("pcc->c", covariance) / POSITIONS
    for p in range(POSITIONS):
        expected = np.linalg.inv(covariance[p] + np.diag(added))
        size = np.abs(expected).max()
        np.testing.assert_allclose(
            white[p].T.astype(float) @ white[p], expected, rtol=3e-3, atol=1e-3 * size
        )


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_however_the_images_come_in_the_moments_are_the_same(sizes, seed):
    data = features(sum(sizes) + 2, seed)
    whole = Moments(POSITIONS, CHANNELS).update(data)
    merged = Moments(POSITIONS, CHANNELS)
    start = 0
    for size in [*sizes, 2]:
        merged.merge(Moments(POSITIONS, CHANNELS).update(data[start : start + size]))
        start += size
    same(merged, whole)


@given(st.integers(2, 20), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_what_was_merged_can_be_taken_out(kept, removed, seed):
    data = features(kept + removed, seed)
    rest = Moments(POSITIONS, CHANNELS).update(data[:kept])
    part = Moments(POSITIONS, CHANNELS).update(data[kept:])
    whole = Moments(POSITIONS, CHANNELS).merge(rest).merge(part)
    before = [array.copy() for array in (whole.mean, whole.scatter, part.mean, part.scatter)]
    same(whole.without(part), rest, rtol=1e-8)
    for array, kept in zip(
        before, (whole.mean, whole.scatter, part.mean, part.scatter), strict=True
    ):
        np.testing.assert_array_equal(array, kept)


def test_more_than_there_is_cannot_be_taken_out():
    moments = Moments(POSITIONS, CHANNELS).update(features(3))
    with pytest.raises(ValueError, match="3 of 3 images"):
        moments.without(moments)


def test_arrays_are_packed_triangles_and_restore_the_moments():
    moments = Moments(POSITIONS, CHANNELS).update(features(30))
    arrays = moments.arrays()
    assert arrays["covariance"].shape == (POSITIONS, CHANNELS * (CHANNELS + 1) // 2)
    assert arrays["covariance"].dtype == arrays["mean"].dtype == np.float32
    restored = Moments.from_arrays(arrays)
    same(restored, moments, rtol=1e-6)
    np.testing.assert_array_equal(restored.scatter, restored.scatter.transpose(0, 2, 1))
    more = features(10, seed=2)
    same(restored.update(more), moments.update(more), rtol=1e-6)


def test_arrays_that_do_not_belong_together():
    arrays = Moments(POSITIONS, CHANNELS).update(features(30)).arrays()
    for change in ({"mean": arrays["mean"][:2]}, {"count": np.array(1)}):
        with pytest.raises(ModelError, match="do not belong together"):
            Moments.from_arrays(arrays | change)


def test_features_are_not_changed_and_other_shapes_refused():
    data = features(10)
    before = data.copy()
    Moments(POSITIONS, CHANNELS).update(data)
    np.testing.assert_array_equal(data, before)
    with pytest.raises(ValueError, match=r"shape \(B, 3, 6\)"):
        Moments(POSITIONS, CHANNELS).update(data[:, :2])


def test_fewer_images_than_channels_and_channels_that_never_vary():
    data = features(3)
    data[..., 0] = 7
    moments = Moments(POSITIONS, CHANNELS).update(data)
    covariance = regularized(moments, 0.01)
    assert np.isfinite(whitening(covariance)).all()
    odd = data[:1].copy()
    odd[..., 0] = 8
    white = whitening(covariance)
    near, far = (mahalanobis(x, moments.mean, white)[0] for x in (data[:1], odd))
    assert (far > near).all()


def test_positions_are_learnt_from_images_in_which_they_count():
    """Against numpy, position by position; merged, taken apart and stored."""
    random = np.random.default_rng(0)
    features = random.normal(100, 3, (12, 4, 3)).astype(np.float32)
    shares = (random.random((12, 4)) > 0.4).astype(np.float32)
    shares[:, 0], shares[:, 3] = 1, 0  # one that always counts, one that never does
    features[shares == 0] = 1e6  # what does not count may be anything
    whole = Moments(4, 3).update(features, shares)
    halves = Moments(4, 3).update(features[:5], shares[:5])
    halves.merge(Moments(4, 3).update(features[5:], shares[5:]))
    apart = Moments(4, 3).update(features[[*range(12), 0, 1]], shares[[*range(12), 0, 1]])
    apart = apart.without(Moments(4, 3).update(features[:2], shares[:2]))
    stored = Moments.from_arrays(whole.arrays())
    for moments, rtol in ((whole, 1e-9), (halves, 1e-9), (apart, 1e-6), (stored, 1e-6)):
        assert moments.count == 12
        np.testing.assert_array_equal(moments.seen, shares.sum(axis=0))
        for position in range(3):
            counted = features[shares[:, position] > 0, position].astype(np.float64)
            np.testing.assert_allclose(moments.mean[position], counted.mean(axis=0), rtol)
            expected = np.cov(counted.T)
            np.testing.assert_allclose(moments.covariance()[position], expected, 1e-3, 1e-3)
        np.testing.assert_allclose(
            moments.means()[3], np.average(moments.mean, axis=0, weights=moments.seen)
        )
        assert np.isfinite(whitening(regularized(moments, 0.03, 20))).all()


def test_half_precision_is_taken_where_its_range_is_enough():
    moments = Moments(POSITIONS, CHANNELS).update(features(40))
    assert whitening(regularized(moments, 0.1)).dtype == np.float16
    small = Moments(POSITIONS, CHANNELS).update(features(40) * 1e-6)
    white = whitening(regularized(small, 0.1))
    assert white.dtype == np.float32 and np.isfinite(white).all()


def refitted(data, shares, prior, regularization):
    """Distance of each vector from the moments of all others, one after the other."""
    out = []
    for n in range(len(data)):
        others = None if shares is None else np.delete(shares, n, axis=0)
        rest = Moments(POSITIONS, CHANNELS).update(np.delete(data, n, axis=0), others)
        covariance = regularized(rest, regularization, prior)
        centred = (data[n] - rest.means())[..., None]
        squared = np.swapaxes(centred, 1, 2) @ np.linalg.solve(covariance, centred)
        out.append(np.sqrt(squared[:, 0, 0]))
    return np.array(out)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(3, 40),
    prior=st.sampled_from([0.0, 1.0, 20.0, 300.0]),
    seed=st.integers(0, 99),
    odd=st.sampled_from([0, 3, 300]),
    padded=st.booleans(),
)
def test_the_distance_of_what_was_seen_is_that_of_a_fit_without_it(count, prior, seed, odd, padded):
    """All that changes without it: means, scatter, pooled covariance and variances."""
    data = features(count, seed=seed)
    data[0] += odd
    shares = None
    if padded:
        shares = np.ones((count, POSITIONS), np.float32)
        shares[count // 2 :, 1] = 0
    moments = Moments(POSITIONS, CHANNELS).update(data, shares)
    found = mahalanobis_unseen(moments, 0.1, prior)(data, shares)
    expected = refitted(data, shares, prior, 0.1)
    scored = np.ones(found.shape, bool) if shares is None else (shares > 0) & (moments.seen > 1)
    np.testing.assert_allclose(found[scored], expected[scored], rtol=1e-3)
    assert np.isfinite(found).all()
