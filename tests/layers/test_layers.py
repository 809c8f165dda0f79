import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="layers need the extra 'train'")

from scipy.ndimage import gaussian_filter1d
from scipy.spatial import distance

from anomaly_ad.layers.gaussian import MahalanobisDistance, SubspaceErrors
from anomaly_ad.layers.maps import along_axes, gaussian_matrix
from anomaly_ad.layers.neighbours import NearestNeighbour
from anomaly_ad.layers.similarity import cell_mean, structural_dissimilarity
from anomaly_ad.statistics.moments import Moments, whitening
from anomaly_ad.statistics.neighbours import NOISE, nearest
from anomaly_ad.statistics.pca import Subspace


@pytest.mark.parametrize("sigma", [0.5, 2, 10])
def test_the_gaussian_matrix_blurs_like_scipy_away_from_the_border(sigma):
    line = np.random.default_rng(0).random(200)
    expected = gaussian_filter1d(line, sigma, truncate=8)
    middle = slice(60, 140)
    np.testing.assert_allclose((gaussian_matrix(200, sigma) @ line)[middle], expected[middle], 1e-4)


def test_the_gaussian_matrix_leaves_a_constant_alone():
    np.testing.assert_allclose(gaussian_matrix(50, 7) @ np.full(50, 3.0), 3, rtol=1e-6)


@pytest.mark.parametrize("xp", [np, keras.ops], ids=["numpy", "keras"])
def test_along_axes_applies_a_matrix_per_axis(xp):
    random = np.random.default_rng(0)
    maps = random.random((2, 5, 7)).astype(np.float32)
    rows, columns = random.random((6, 5)), random.random((9, 7))
    rows, columns = rows.astype(np.float32), columns.astype(np.float32)
    out = np.asarray(along_axes(xp, maps, rows, columns))
    np.testing.assert_allclose(out, np.stack([rows @ m @ columns.T for m in maps]), rtol=1e-5)


def naive_dissimilarity(a, b):
    """Windows of 6 x 6 pixels at every second pixel; cells of 2 x 2 are mirrored outside."""

    def padded(picture):
        cells = (np.pad(np.arange(n // 2), 1, mode="reflect") for n in picture.shape)
        rows, columns = (np.stack([2 * c, 2 * c + 1], axis=1).ravel() for c in cells)
        return picture[np.ix_(rows, columns)].astype(np.float64)

    out = np.zeros((a.shape[0] // 2, a.shape[1] // 2))
    a, b = padded(a), padded(b)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            place = slice(2 * y, 2 * y + 6), slice(2 * x, 2 * x + 6)
            p, q = a[place], b[place]
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            luminance = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
            structure = (2 * covariance + 9e-4) / (p.var() + q.var() + 9e-4)
            out[y, x] = (1 - luminance * structure) / 2
    return out


def test_structural_dissimilarity_equals_its_definition():
    random = np.random.default_rng(0)
    a = random.random((1, 20, 24, 2)).astype(np.float32)
    b = np.clip(a + random.normal(0, 0.2, a.shape), 0, 1).astype(np.float32)
    out = np.asarray(structural_dissimilarity(a, b))
    for channel in range(2):
        expected = naive_dissimilarity(a[0, ..., channel], b[0, ..., channel])
        np.testing.assert_allclose(out[0, ..., channel], expected, atol=1e-5)
    assert np.abs(structural_dissimilarity(a, a)).max() < 1e-5


def test_structural_dissimilarity_keeps_its_digits_where_a_picture_is_flat():
    random = np.random.default_rng(0)
    a = 0.9 + random.normal(0, 1e-4, (1, 24, 24, 1))
    b = 0.3 + random.normal(0, 1e-4, a.shape)
    out = np.asarray(structural_dissimilarity(a.astype(np.float32), b.astype(np.float32)))
    expected = naive_dissimilarity(a[0, ..., 0], b[0, ..., 0])
    np.testing.assert_allclose(out[0, ..., 0], expected, atol=3e-7)


def test_sizes_that_are_no_multiple_of_a_cell():
    a = np.random.default_rng(0).random((2, 17, 23, 1)).astype(np.float32)
    assert structural_dissimilarity(a, 1 - a).shape == (2, 9, 12, 1)
    cells = np.asarray(cell_mean(a))
    np.testing.assert_allclose(cells[0, 8, 11, 0], a[0, 16, 22, 0])
    np.testing.assert_allclose(cells[0, 0, 0, 0], a[0, :2, :2, 0].mean(), rtol=1e-6)


def test_the_gaussian_matrix_of_cells_enlarges_a_ramp_to_pixels():
    ramp = np.arange(60) * 2 + 0.5  # the pixel coordinates of the cells' centres
    pixels = gaussian_matrix(119, 4, cell=2) @ ramp
    np.testing.assert_allclose(pixels[30:90], np.arange(30, 90), rtol=1e-3)


def test_the_nearest_neighbour_equals_the_formula_also_near_zero():
    random = np.random.default_rng(0)
    bank = random.normal(30, 5, (40, 7)).astype(np.float32)
    vectors = random.normal(30, 5, (2, 9, 7)).astype(np.float32)
    vectors[0, 0] = bank[3]
    vectors[1, 2] = bank[5] + np.float32(1e-4)
    distances, indices = map(np.asarray, NearestNeighbour(bank, 7 * NOISE)(vectors))
    expected, which = nearest(vectors.reshape(-1, 7), bank)
    np.testing.assert_allclose(distances.ravel(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(indices.ravel(), which)
    assert distances[0, 0] == pytest.approx((7 * NOISE) ** 0.5)
    assert distances.shape == indices.shape == (2, 9)


def test_subspace_errors_equal_the_formula():
    random = np.random.default_rng(0)
    data = random.normal(5, 10, (50, 1, 7)) * np.arange(1, 8)
    subspace = Subspace.of(Moments(1, 7).update(data), 0.9)
    vectors = random.normal(5, 10, (2, 3, 7)).astype(np.float32)
    layer = SubspaceErrors(subspace.mean, subspace.basis, subspace.variances)
    for received, expected in zip(layer(vectors), subspace.errors(vectors), strict=True):
        np.testing.assert_allclose(np.asarray(received), expected, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_mahalanobis_distances_are_those_of_scipy(channels):
    """At each position, where the matrices are divided into halves of any size."""
    rng = np.random.default_rng(channels)
    mixing = rng.normal(size=(3, channels, 2 * channels))
    covariance = mixing @ mixing.transpose(0, 2, 1)
    mean = rng.normal(size=(3, channels)) + 10
    vectors = rng.normal(size=(4, 3, channels)) + 10
    layer = MahalanobisDistance(mean, whitening(covariance).astype(np.float32))
    found = np.asarray(layer(vectors.astype(np.float32)))
    for image in range(4):
        for place in range(3):
            expected = distance.mahalanobis(
                vectors[image, place], mean[place], np.linalg.inv(covariance[place])
            )
            assert found[image, place] == pytest.approx(expected, rel=2e-3)
