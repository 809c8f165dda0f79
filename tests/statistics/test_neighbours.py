"""The bank of PatchCore: against scikit-learn and a plain selection."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import ModelError
from anomaly_ad.statistics import neighbours
from anomaly_ad.statistics.neighbours import (
    FeatureBank,
    closest,
    greedy_k_centre,
    nearest,
    projected,
)

GROUPS = (2, 4)


def features(count, seed=0, positions=5, copies=False):
    random = np.random.default_rng(seed)
    out = random.normal(5, 10, (count, positions, 6)).astype(np.float32)
    if copies:  # a background that is the same in most images
        out[:, 0] = 3
        out[random.random(count) < 0.7, 1] = 4
    return out


def bank(pool=10_000, kept=20, seed=0):
    return FeatureBank(GROUPS, pool, kept, seed)


def same(first, second):
    assert first.count == second.count
    np.testing.assert_array_equal(first.keys, second.keys)
    np.testing.assert_array_equal(first.times, second.times)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.coreset().vectors, second.coreset().vectors)
    np.testing.assert_array_equal(first.coreset().scale, second.coreset().scale)


def plain_selection(points, count):
    """One pass over all points for each choice, in float64."""
    points = points.astype(np.float64)
    chosen = [int(np.square(points - points.mean(axis=0)).sum(axis=1).argmax())]
    near = np.full(len(points), np.inf)
    while len(chosen) < count:
        near = np.minimum(near, np.square(points - points[chosen[-1]]).sum(axis=1))
        chosen.append(int(near.argmax()))
    return chosen


@pytest.mark.parametrize("candidates", [7, 64, 10_000])
@pytest.mark.parametrize("count", [1, 2, 60, 299])
def test_the_selection_is_the_plain_one(monkeypatch, candidates, count):
    monkeypatch.setattr(neighbours, "_CANDIDATES", candidates)
    monkeypatch.setattr(neighbours, "_CHUNK", 100)
    points = np.random.default_rng(1).normal(5, 10, (300, 3)).astype(np.float32)
    before = points.copy()
    chosen = greedy_k_centre(points, count)
    np.testing.assert_array_equal(chosen, plain_selection(points, count))
    np.testing.assert_array_equal(points, before)


@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 100), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_point_is_chosen_twice_and_none_is_far_from_all(n, count, seed, copies):
    points = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    if copies:
        points[n // 2 :] = points[0]
    chosen = greedy_k_centre(points, count)
    assert len(set(chosen.tolist())) == len(chosen) == min(n, count)
    # A greedy choice covers all points within twice the least radius that so many can.
    gaps = np.linalg.norm(points[:, None] - points[chosen], axis=-1).min(axis=1)
    between = np.linalg.norm(points[chosen][:, None] - points[chosen], axis=-1)
    np.fill_diagonal(between, np.inf)
    if len(chosen) > 1 and len(chosen) < n:
        assert gaps.max() <= between.min() + 1e-3


def test_the_projection_keeps_distances_and_never_adds_dimensions():
    random = np.random.default_rng(0)
    few, many = random.normal(size=(50, 10)), random.normal(size=(50, 500))
    assert projected(few.astype(np.float32), np.ones(10, np.float32), 0).shape == (50, 10)
    out = projected(many.astype(np.float32), np.full(500, 2, np.float32), 0)
    assert out.shape == (50, 64)
    ratio = np.linalg.norm(out[0] - out[1:], axis=1) / np.linalg.norm(many[0] - many[1:], axis=1)
    np.testing.assert_allclose(ratio, 2, rtol=0.4)
    assert (projected(many.astype(np.float32), np.ones(500, np.float32), 1) != out).any()


def test_the_nearest_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.neighbors", reason="needs the extra 'eval'")
    vectors, of = features(40, 1).reshape(-1, 6), features(11, 2).reshape(-1, 6)
    distances, indices = nearest(vectors, of)
    expected = sklearn.NearestNeighbors(n_neighbors=1).fit(of.astype(np.float64))
    expected_distances, expected_indices = expected.kneighbors(vectors.astype(np.float64))
    noise = neighbours.NOISE * 6
    np.testing.assert_allclose(distances, np.sqrt(expected_distances[:, 0] ** 2 + noise), rtol=1e-5)
    np.testing.assert_array_equal(indices, expected_indices[:, 0])


def test_a_vector_of_the_bank_is_at_the_least_distance_however_large_it_is():
    vectors = features(20).reshape(-1, 6) + np.float32(1e4)
    scaled = bank().update(vectors[None]).coreset().scaled(vectors)
    distances, indices = nearest(scaled, scaled)
    np.testing.assert_allclose(distances, np.sqrt(neighbours.NOISE * 6), rtol=1e-6)
    np.testing.assert_array_equal(indices, np.arange(len(vectors)))


@pytest.mark.parametrize("pool", [30, 10_000])
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 100), st.booleans())
@settings(max_examples=40, deadline=None)
def test_however_the_images_come_in_the_bank_is_the_same(pool, sizes, seed, copies):
    data = features(sum(sizes) + 2, seed, copies=copies)
    before = data.copy()
    whole, merged = bank(pool).update(data), bank(pool)
    edges = np.cumsum([0, 2, *sizes])
    for start, end in reversed([*itertools.pairwise(edges)]):
        merged.merge(bank(pool).update(data[start:end]))
    same(merged, whole)
    np.testing.assert_array_equal(data, before)
    different = np.unique(data.reshape(-1, 6), axis=0)
    assert len(whole.vectors) == min(pool, len(different))
    assert pool == 30 or whole.times.sum() == 5 * len(data)


@pytest.mark.parametrize("copies", [False, True])
def test_a_part_is_taken_out_again(copies):
    data = features(12, copies=copies)
    whole = bank().update(data)
    part, rest = bank().update(data[3:7]), bank().update(np.concatenate([data[:3], data[7:]]))
    same(whole.without(part), rest)
    assert whole.count == 12 and whole.times.sum() == 60


def test_the_sample_is_a_fair_one():
    """Every image, and every place in it, has the same chance to be among the candidates."""
    counts = np.zeros((40, 50))
    data = np.arange(40 * 50, dtype=np.float32).reshape(40, 50, 1) * np.ones(6, np.float32)
    for seed in range(100):
        kept = bank(pool=200, seed=seed).update(data).vectors[:, 0].astype(int)
        counts[kept // 50, kept % 50] += 1
    assert counts.sum() == 100 * 200
    np.testing.assert_allclose(counts.mean(axis=0), 10, rtol=0.3)
    np.testing.assert_allclose(counts.mean(axis=1), 10, rtol=0.3)


def test_every_group_of_channels_varies_as_much_as_the_others():
    data = features(400)
    data[..., :2] *= 100
    coreset = bank().update(data).coreset()
    variances = (data.reshape(-1, 6) * coreset.scale).var(axis=0)
    np.testing.assert_allclose(variances[:2].sum(), variances[2:].sum(), rtol=1e-3)
    np.testing.assert_allclose(variances.mean(), 1, rtol=1e-3)
    scaled = coreset.scaled(data)
    np.testing.assert_allclose(scaled.mean(axis=(0, 1)), 0, atol=1e-3)
    gaps = scaled[0] - scaled[1], (data[0] - data[1]) * coreset.scale
    np.testing.assert_allclose(*gaps, rtol=1e-3, atol=1e-3)


def test_a_group_that_never_varies_does_no_harm():
    data = features(10)
    data[..., :2] = 7
    coreset = bank().update(data).coreset()
    assert np.isfinite(coreset.scaled(data)).all()
    data[:] = 7
    assert np.isfinite(bank().update(data).coreset().scaled(data)).all()


def test_a_stored_bank_scores_as_the_one_that_was_stored():
    original = bank().update(features(30))
    arrays = original.arrays()
    restored = bank().restore(arrays)
    assert restored.count == 30
    for name in ("vectors", "mean", "scale"):
        expected = getattr(original.coreset(), name)
        np.testing.assert_array_equal(getattr(restored.coreset(), name), expected)
    with pytest.raises(ValueError, match="restored has no candidates"):
        restored.update(features(2))
    for change in (
        {"coreset": arrays["coreset"][:, :5]},
        {"coreset": arrays["coreset"][:1]},
        {"coreset": np.concatenate([arrays["coreset"]] * 2)},
        {"scale": arrays["scale"][:5]},
        {"mean": arrays["mean"][:5]},
    ):
        with pytest.raises(ModelError, match="coreset does not belong"):
            bank().restore({**arrays, **change})


@pytest.mark.parametrize(("size", "count"), [(700, 9), (5, 9), (2, 1)])
def test_the_closest_of_a_bank_are_those_of_a_plain_search(size, count):
    vectors = np.random.default_rng(0).normal(size=(size, 4)).astype(np.float32)
    gaps = np.linalg.norm(vectors[:, None].astype(np.float64) - vectors, axis=-1)
    expected = np.sort(np.argsort(gaps, axis=1)[:, :count], axis=1)
    np.testing.assert_array_equal(np.sort(closest(vectors, count), axis=1), expected)
