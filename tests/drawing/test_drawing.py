import numpy as np
from conftest import draw_part

from anomaly_ad.drawing.pictures import BOX_COLOUR, draw_boxes, heatmap, side_by_side, to_rgb
from anomaly_ad.images import Framing

SPEC = Framing(32, 32, 3)


def test_a_good_part_looks_like_itself():
    image = draw_part(0)
    out = heatmap(image, np.full((32, 32), 0.6, np.float32), SPEC)
    np.testing.assert_array_equal(out, image)
    assert not np.shares_memory(out, image)


def test_the_heatmap_colours_the_spot_and_only_it():
    image = draw_part(0, size=128)
    before = image.copy()
    anomaly_map = np.zeros((32, 32), np.float32)
    anomaly_map[8:12, 20:24] = 0.95
    out = heatmap(image, anomaly_map, SPEC)
    np.testing.assert_array_equal(image, before)
    changed = (out != image).any(axis=-1)
    ys, xs = np.nonzero(changed)
    assert 28 <= ys.min() <= 34 and 46 <= ys.max() <= 52
    assert 76 <= xs.min() <= 82 and 94 <= xs.max() <= 100
    assert (out[36:44, 86:90, 0].astype(int) - out[36:44, 86:90, 2] > 60).all()  # reddish


def test_colours_grow_with_the_map_not_with_the_image():
    image = np.full((32, 32, 3), 128, np.uint8)
    redness = []
    for value in (0.5, 0.7, 0.8, 0.9, 0.97):
        out = heatmap(image, np.full((32, 32), value, np.float32), SPEC).astype(int)
        redness.append(out[0, 0, 0] - out[0, 0, 1])
    assert redness == sorted(redness) and redness[0] == 0 and redness[-1] > 60


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
