import cv2
import numpy as np
import pytest
from conftest import taken
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from anomaly_ad.errors import OptionError
from anomaly_ad.images import Framing
from anomaly_ad.inspection.pages import packed
from anomaly_ad.inspection.regions import MOST, Region, deviating_cells, marked, outlines, regions
from anomaly_ad.model import Limit, check_patch_size

LIMIT = Limit(1.0, 2.0, 100, 0.01, 0.01)


def smooth_map(seed, height=40, width=30):
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 2.5)
    return (1.5 + 4 * noise).astype(np.float32)


def naive_cells(marks, patch_size):
    boxes = []
    height, width = marks.shape
    for y in range(0, height, patch_size):
        for x in range(0, width, patch_size):
            box = [x, y, min(x + patch_size, width), min(y + patch_size, height)]
            if marks[y : y + patch_size, x : x + patch_size].any():
                boxes.append(box)
    return boxes


@given(st.integers(4, 60), st.integers(4, 60), st.integers(4, 30), st.integers(0, 1000))
def test_cells_equal_those_of_two_loops(height, width, patch_size, seed):
    marks = np.random.default_rng(seed).random((height, width)) > 0.99
    boxes = deviating_cells(marks, patch_size)
    assert boxes.dtype == np.int32
    assert boxes.tolist() == naive_cells(marks, patch_size)


def test_no_cell_deviates():
    assert deviating_cells(np.zeros((20, 20), np.bool_), 5).shape == (0, 4)


@given(st.integers(0, 200), st.floats(0, 0.999), st.booleans())
def test_what_is_anomalous_has_a_mark_and_what_is_good_has_none(seed, threshold, is_anomalous):
    anomaly_map = smooth_map(seed)
    marks = marked(anomaly_map, LIMIT, threshold, is_anomalous=is_anomalous)
    assert marks.any() == is_anomalous
    above = anomaly_map > LIMIT.raw(threshold)
    if is_anomalous and above.any():
        np.testing.assert_array_equal(marks, above)
    if is_anomalous:
        assert marks.flat[np.argmax(anomaly_map)]


@pytest.mark.parametrize("height", [-5.0, 1.0, 1.5, 1.99])
def test_only_the_peak_where_the_map_stays_below_its_limit(height):
    anomaly_map = np.full((20, 20), -6.0, np.float32)
    anomaly_map[4:7, 9:12] = height
    marks = marked(anomaly_map, LIMIT, 0.8, is_anomalous=True)
    assert marks.sum() == 9 and marks[4:7, 9:12].all()


def test_padding_is_never_marked():
    anomaly_map = np.full((20, 20), -np.inf, np.float32)
    anomaly_map[5:15] = 0.0
    assert not marked(anomaly_map, LIMIT, 0.8, is_anomalous=True)[:5].any()


@given(st.integers(0, 300))
def test_regions_are_the_connected_components(seed):
    anomaly_map = smooth_map(seed)
    marks = marked(anomaly_map, LIMIT, 0.6, is_anomalous=True)
    found = regions(marks, anomaly_map, LIMIT, taken(Framing(40, 30, 3), (80, 90)))
    labels, count = ndimage.label(marks, np.ones((3, 3)))
    assert len(found) == count
    expected = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        box = (columns.start * 3, rows.start * 2, columns.stop * 3, rows.stop * 2)
        inside = labels == number
        peak = float(LIMIT.score(anomaly_map[inside].astype(np.float64)).max())
        expected.append((box, int(inside.sum()) * 6, peak))
    assert {(r.box, r.area) for r in found} == {(box, area) for box, area, _ in expected}
    assert [r.score for r in found] == pytest.approx(
        sorted((s for *_, s in expected), reverse=True)
    )
    for region in found:
        x1, y1, x2, y2 = region.box
        assert (region.contour >= (x1, y1)).all() and (region.contour <= (x2, y2)).all()


def test_an_outline_follows_the_edges_of_its_pixels():
    marks = np.zeros((10, 12), np.bool_)
    marks[2:5, 3:9] = True
    marks[7, 7] = True
    small, large = sorted(outlines(marks), key=lambda one: np.ptp(one[:, 0]))
    assert {tuple(p) for p in large.tolist()} == {(3, 2), (9, 2), (9, 5), (3, 5)}
    assert {tuple(p) for p in small.tolist()} == {(7, 7), (8, 7), (8, 8), (7, 8)}


def test_outline_and_mask_agree():
    """Filled, an outline is its region, but for less than a pixel along the edge."""
    anomaly_map = smooth_map(3, 64, 64)
    marks = marked(anomaly_map, LIMIT, 0.7, is_anomalous=True)
    found = regions(marks, anomaly_map, LIMIT, taken(Framing(64, 64, 3), (640, 640)))
    drawn = np.zeros((640, 640), np.uint8)
    cv2.fillPoly(drawn, [region.contour for region in found], 1)
    large = marks.repeat(10, axis=0).repeat(10, axis=1)
    holes = ndimage.binary_fill_holes(large)
    assert (drawn.astype(bool) != holes).mean() < 0.025


def test_in_the_photograph_without_its_padding():
    framing = Framing.new(40, 40, 3, "pad")
    anomaly_map = np.full((40, 40), -1.0, np.float32)
    anomaly_map[20:22, 0:10] = 3.0
    marks = marked(
        taken(framing, (50, 100)).where_counted(anomaly_map), LIMIT, 0.8, is_anomalous=True
    )
    (region,) = regions(marks, anomaly_map, LIMIT, taken(framing, (50, 100)))
    assert region.box == (0, 25, 25, 30) and region.area == 125
    corners = [(0, 25), (0, 30), (25, 25), (25, 30)]
    assert sorted(map(tuple, region.contour.tolist())) == corners


def test_there_are_never_too_many():
    anomaly_map = np.zeros((64, 64), np.float32)
    anomaly_map[::4, ::4] = 3 + np.arange(256).reshape(16, 16) / 256
    marks = marked(anomaly_map, LIMIT, 0.8, is_anomalous=True)
    found = regions(marks, anomaly_map, LIMIT, taken(Framing(64, 64, 3), (64, 64)))
    assert len(found) == MOST and found[0].box == (60, 60, 61, 61)


def test_a_region_as_plain_values():
    anomaly_map = smooth_map(1)
    marks = marked(anomaly_map, LIMIT, 0.8, is_anomalous=True)
    region = regions(marks, anomaly_map, LIMIT, taken(Framing(40, 30, 3), (40, 30)))[0]
    again = Region.from_dict(region.to_dict())
    assert again.to_dict() == region.to_dict() and again.contour.dtype == np.int32


@given(st.integers(0, 100))
def test_packed_maps_keep_order_and_score(seed):
    anomaly_map = smooth_map(seed) - 1
    levels = packed(anomaly_map, LIMIT).astype(float)
    order = np.argsort(anomaly_map, axis=None)
    assert (np.diff(levels.ravel()[order]) >= 0).all()
    above = anomaly_map > LIMIT.median
    score = LIMIT.score(anomaly_map[above])
    assert np.abs((levels[above] - 64) / 191 - score).max(initial=0) < 0.003


@pytest.mark.parametrize("patch_size", [3, 65, 8.0, True, "8", None, -8])
def test_patch_sizes_that_do_not_fit(patch_size):
    with pytest.raises(OptionError, match="from 4 to 64"):
        check_patch_size(patch_size, (64, 100))
