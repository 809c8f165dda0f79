import numpy as np
import pytest
from conftest import draw_part, taken

from anomaly_ad.drawing.pictures import (
    BOX_COLOUR,
    annotated,
    colours,
    draw_boxes,
    draw_outlines,
    heatmap,
    side_by_side,
    to_rgb,
)
from anomaly_ad.images import Framing
from anomaly_ad.model import Limit

SPEC = Framing(32, 32, 3)


def test_what_is_not_marked_looks_like_itself():
    image = draw_part(0)
    nowhere = np.zeros((32, 32), np.bool_)
    out = heatmap(image, np.full((32, 32), 0.9, np.float32), nowhere, taken(SPEC, (64, 64)))
    np.testing.assert_array_equal(out, image)
    assert not np.shares_memory(out, image)


def test_the_heatmap_colours_the_spot_and_only_it():
    image = draw_part(0, size=128)
    before = image.copy()
    anomaly_map = np.zeros((32, 32), np.float32)
    anomaly_map[8:12, 20:24] = 0.95
    out = heatmap(image, anomaly_map, anomaly_map > 0.8, taken(SPEC, (128, 128)))
    np.testing.assert_array_equal(image, before)
    changed = (out != image).any(axis=-1)
    ys, xs = np.nonzero(changed)
    assert 28 <= ys.min() <= 34 and 46 <= ys.max() <= 52
    assert 76 <= xs.min() <= 82 and 94 <= xs.max() <= 100
    assert (out[36:44, 86:90, 0].astype(int) - out[36:44, 86:90, 2] > 60).all()  # reddish


def test_colours_have_depth_beyond_the_threshold():
    """Up to four times as far from the median; and they move with the threshold."""
    everywhere = np.ones((1, 1), np.bool_)

    def colour(value, threshold):
        return colours(np.full((1, 1), value, np.float32), everywhere, threshold)[0, 0].tolist()

    limit = Limit(0.0, 1.0, 10, 0.1, 0.1)
    for threshold in (0.3, 0.8, 0.95):
        far = limit.raw(threshold)
        steps = [colour(float(limit.score(n * far)), threshold) for n in (1, 1.5, 2, 3, 4, 6)]
        assert steps[0][:3] == [255, 225, 0]
        assert [green for _, green, *_ in steps] == sorted((g for _, g, *_ in steps), reverse=True)
        assert len(set(map(tuple, steps[:5]))) == 5
        assert np.abs(np.subtract(steps[4], steps[5])).max() <= 6  # the end
        assert [opacity for *_, opacity in steps] == sorted(opacity for *_, opacity in steps)


def test_outlines_are_closed_and_stay_inside():
    image = np.zeros((40, 40, 3), np.uint8)
    square = np.array([[20, 20], [40, 20], [40, 40], [20, 40]], np.int32)
    out = draw_outlines(image, [square])
    assert not image.any()
    red = out[..., 0] > 128
    assert red[20, 20:].all() and red[20:, 39].all() and red[39, 20:].all() and red[20:, 20].all()
    assert not red[22:37, 22:37].any() and not red[:18].any()


@pytest.mark.parametrize("width", [20, 200, 3000])
def test_words_stand_above_the_picture(width):
    image = np.full((30, width, 3), 9, np.uint8)
    for is_anomalous in (True, False):
        out = annotated(image, "ANOMALOUS  score 0.912", is_anomalous=is_anomalous)
        np.testing.assert_array_equal(out[-30:], image)
        band = out[:-30]
        assert len(band) >= 14 and (band > 200).all(axis=-1).any()
        assert (band[0, -1] == [170, 0, 0]).all() == is_anomalous


def test_boxes_are_framed_at_their_place():
    image = np.zeros((100, 100, 3), np.uint8)
    out = draw_boxes(image, np.array([[10, 20, 40, 60]], np.int32))
    assert not image.any()
    ys, xs = np.nonzero((out == BOX_COLOUR).all(axis=-1))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (20, 59, 10, 39)
    assert not out[25:55, 15:35].any()


def test_side_by_side_and_to_rgb():
    image = draw_part(0)
    out = side_by_side(image, image[:, ::-1])
    assert out.shape[0] == 64 and out.shape[1] > 128
    np.testing.assert_array_equal(out[:, :64], image)
    np.testing.assert_array_equal(out[:, -64:], image[:, ::-1])
    assert to_rgb(np.full((4, 4, 1), 300.0)).tolist() == np.full((4, 4, 3), 255).tolist()
