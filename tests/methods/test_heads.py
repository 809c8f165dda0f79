"""Heads: the same for numpy and Keras, and only what counts counts."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

import keras

from anomaly_ad.images import Framing, ImageSet
from anomaly_ad.methods.autoencoder import Autoencoder
from anomaly_ad.methods.heads import MapHead, counting, highest, image_vector, mean_of
from anomaly_ad.statistics.pool import VectorPool

XP = pytest.mark.parametrize("xp", [np, keras.ops], ids=["numpy", "keras"])
SIZE, GRID = (32, 48), (4, 6)
INSIDE = np.zeros((1, *SIZE), np.uint8)
INSIDE[:, :, 10:35] = 1  # begins and ends within a cell


@XP
def test_cells_that_do_not_count_change_nothing(xp):
    head = MapHead(SIZE, GRID, 3.0)
    shares = np.asarray(head.shares(xp, INSIDE)).reshape(GRID)
    np.testing.assert_allclose(shares[0], [0, 0.75, 1, 1, 0.375, 0], atol=1e-6)
    cells = np.full((1, 24), 5, np.float32)
    cells.reshape(GRID)[:, [0, 5]] = 1000
    found = np.asarray(head(xp, cells, INSIDE))
    np.testing.assert_allclose(found[INSIDE > 0], 5, rtol=1e-5)
    assert (found[INSIDE == 0] == 0).all()
    assert float(np.asarray(highest(xp, found))[0]) == pytest.approx(5)
    odd = np.asarray(counting(xp, cells, shares.reshape(1, -1))).reshape(GRID)
    assert (odd[:, [0, 5]] == 0).all() and (odd[:, 1:5] == 5).all()
    whole = np.ones_like(INSIDE)
    np.testing.assert_allclose(
        np.asarray(head(xp, cells, whole)), np.asarray(head(xp, cells)), rtol=1e-5
    )


@XP
def test_means_are_of_what_counts(xp):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(2, 6, 3)).astype(np.float32)
    shares = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0.5, 0.5, 1, 1]], np.float32)
    weights = np.kron(np.eye(2), np.full((1, 3), 1 / 3)).astype(np.float32)
    received = np.asarray(mean_of(xp, weights, vectors, shares))
    changed = np.where(shares[..., None] > 0, vectors, 1e6).astype(np.float32)
    np.testing.assert_allclose(np.asarray(mean_of(xp, weights, changed, shares)), received)
    counted = vectors[0, :3].mean(axis=0)  # of the part without any, too
    np.testing.assert_allclose(received[0], [counted, counted], rtol=1e-4)
    plain = np.asarray(mean_of(xp, weights, vectors, None))
    np.testing.assert_allclose(plain, vectors.reshape(2, 2, 3, 3).mean(axis=2), rtol=1e-4)


def test_an_image_is_the_means_over_parts_of_each_of_its_maps():
    random = np.random.default_rng(0)
    fine, coarse = (random.normal(size=(1, *grid, 2)).astype(np.float32) for grid in (GRID, (2, 3)))
    framing = Framing(*SIZE, 3)
    found = np.asarray(image_vector([fine, coarse], framing, None, (2, 6)))
    means = fine.reshape(1, 2, 2, 6, 2).mean(axis=2)
    expected = np.concatenate([means.ravel(), coarse.ravel()])  # it has three columns only
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    changed = [each.copy() for each in (fine, coarse)]
    changed[0][:, :, [0, 5]] = 1000  # of what does not count
    first, second = (
        np.asarray(image_vector([maps[0]], framing, INSIDE, (2, 3)))
        for maps in ([fine, coarse], changed)
    )
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_a_pool_holds_what_counts():
    vectors = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    shares = np.array([[1, 0, 0.2, 0], [0, 0, 0, 1]], np.float32)
    pool = VectorPool(3, 100, 0).update(vectors, shares)
    assert pool.count == 2
    assert sorted(pool.vectors.tolist()) == sorted(vectors[shares > 0].tolist())


def test_errors_are_learnt_where_images_count():
    """Photographs of two shapes: where only one lies, the other's padding teaches nothing."""
    framing = Framing.new(48, 80, 1, "pad")
    random = np.random.default_rng(0)
    wide, high = (
        [random.integers(0, 255, (*size, 3), np.uint8) for _ in range(count)]
        for size, count in (((48, 80), 4), ((48, 48), 8))
    )
    sets = [ImageSet(np.stack([framing.views(image) for image in some])) for some in (wide, high)]
    detector = Autoencoder(framing, 16, 0)
    detector.learn_after(*sets)
    alone = Autoencoder(framing, 16, 0)
    alone.learn_after(sets[0], sets[0])
    side = np.s_[..., :16]  # where only wide ones lie
    np.testing.assert_allclose(detector.mean["error"][side], alone.mean["error"][side], rtol=1e-4)
    assert not np.allclose(detector.mean["error"][..., 20:60], alone.mean["error"][..., 20:60])
