"""Regions of interest: forms that users give, and what a model then takes of a photograph."""

import json

import cv2
import numpy as np
import pytest
from conftest import write_image
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import ImageError, OptionError, PathError, PoseError
from anomaly_ad.images import Framing, Photograph
from anomaly_ad.images.roi import box_of, check_region, mask_of, resolve_region

SIZE = (60, 80)
SQUARE = [(10, 20), (50, 20), (50, 40), (10, 40)]


def resolved(roi=None, ignore=None, size=SIZE):
    return mask_of(resolve_region(roi, ignore, [size]))


def test_a_rectangle_is_what_a_box_is():
    expected = np.zeros(SIZE, bool)
    expected[20:40, 10:50] = True
    np.testing.assert_array_equal(resolved((10, 20, 50, 40)), expected)
    np.testing.assert_array_equal(resolved(SQUARE), expected)
    np.testing.assert_array_equal(resolved([SQUARE]), expected)
    np.testing.assert_array_equal(resolved(ignore=(10, 20, 50, 40)), ~expected)


@given(st.integers(0, 60), st.integers(0, 40), st.integers(8, 20), st.integers(8, 20))
def test_rectangles_and_masks_agree(x, y, width, height):
    mask = np.zeros(SIZE, np.uint8)
    mask[y : y + height, x : x + width] = 255
    box = (x, y, x + width, y + height)
    np.testing.assert_array_equal(resolved(box), resolved(mask))
    assert box_of(resolve_region(box, None, [SIZE])) == box


def test_a_polygon_has_the_pixels_whose_centres_lie_in_it():
    triangle = [(5.0, 5.0), (65.0, 5.0), (5.0, 55.0)]
    y, x = np.mgrid[:60, :80] + 0.5
    inside = (x > 5) & (y > 5) & ((x - 5) / 60 + (y - 5) / 50 < 1)
    assert (resolved(triangle) != inside).sum() <= 130  # those on its sides


def test_several_polygons_are_inspected_together_and_what_is_ignored_goes():
    found = resolved([SQUARE, [(60, 2), (78, 2), (78, 18), (60, 18)]], (20, 25, 30, 35))
    assert found[30, 12] and found[10, 70] and not found[30, 25] and not found[5, 5]


def test_a_file_of_the_page(tmp_path):
    path = tmp_path / "roi.json"
    values = {
        "image_size": [*SIZE],
        "inspect": [SQUARE],
        "ignore": [[(20, 25), (30, 25), (30, 35)]],
    }
    path.write_text(json.dumps(values))
    assert resolved(path)[30, 12] and not resolved(str(path))[27, 28]
    path.write_text(json.dumps({**values, "inspect": []}))
    np.testing.assert_array_equal(resolved(path), resolved(ignore=path))
    assert not resolved(ignore=path)[27, 28] and resolved(ignore=path)[5, 5]


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_a_mask_in_a_file(tmp_path, suffix):
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[5:30, 5:30] = 255
    assert resolved(write_image(tmp_path / f"mask{suffix}", mask)).sum() == 625


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        ((10, 20, 90, 40), "must lie within"),
        ((-5, 20, 50, 40), "must lie within"),
        ((50, 20, 10, 40), "x1 < x2"),
        ((10, 20, 10, 40), "x1 < x2"),
        ((10, 20, 14, 24), "At least 8 pixels"),
        ([(0, 0), (40, 40), (40, 0), (0, 40)], "cross each other"),
        ([(0, 0), (40, 40)], "three corners"),
        ([], "roi is a rectangle"),
        ("", "roi"),
        ((1, 2, 3), "roi is a rectangle"),
        ((np.nan, 0, 10, 10), "roi is a rectangle"),
        (7, "roi is a rectangle"),
        (True, "roi is a rectangle"),
        (np.zeros(SIZE, np.uint8), "nothing of the images"),
        (np.zeros((30, 40), np.uint8), "is a mask of 30x40"),
        (np.tile(np.arange(80, dtype=np.uint8), (60, 1)), "gray values"),
        ({"image_size": [6, 8], "inspect": [SQUARE]}, "drawn on an image of 6x8"),
        ({"image_size": [60, 80]}, "Draw it again"),
        ({"image_size": "x", "inspect": [SQUARE]}, "Draw it again"),
        ({"image_size": [60, 80], "inspect": {"a": 1}}, "lists of corners"),
    ],
)
def test_regions_that_cannot_be(roi, message):
    with pytest.raises((OptionError, PathError, ImageError), match=message):
        check_region("roi", roi)
        resolved(roi)


def test_forms_are_checked_before_images_are_known():
    for bad in ((50, 20, 10, 40), [(0, 0), (1, 1)], 3, object()):
        with pytest.raises(OptionError):
            check_region("roi", bad)
    with pytest.raises((OptionError, PathError)):
        resolve_region(None, "part", [SIZE])  # a file of that name is looked for


def test_images_of_several_sizes_have_no_region_but_the_part():
    with pytest.raises(OptionError, match=r'several .*roi="part"'):
        resolve_region((0, 0, 20, 20), None, [SIZE, (30, 40)])
    assert resolve_region("part", None, [SIZE, (30, 40)]) is None


# ----------------------------------------------------------------------------- framing


def framing(roi=None, ignore=None, fit="stretch", size=SIZE, **more):
    region = resolve_region(roi, ignore, [size])
    return Framing.new(40, 40, 3, fit, region=region, **more)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
@pytest.mark.parametrize("roi", [(10, 20, 50, 40), [(10, 20), (50, 20), (50, 40)], None])
def test_what_lies_outside_is_not_seen(roi, fit):
    way = framing(roi, (30, 25, 38, 33), fit)
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    other = np.where(mask_of(way.region)[..., None], image, random.integers(0, 256, image.shape))
    # Pixels on the edge are means of both sides.
    edge = cv2.dilate((~mask_of(way.region)).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    other = np.where(edge[..., None] & mask_of(way.region)[..., None], image, other)
    first, second = way.take(image), way.take(other.astype(np.uint8))
    inner = cv2.erode(first.counted.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    np.testing.assert_array_equal(first.views[0][inner], second.views[0][inner])
    assert (first.views[0][~first.counted][:, :3] == 128).all()
    assert (first.views[0][..., 3] == first.counted).all()
    assert not first.where_counted(np.ones((40, 40), np.float32))[~first.counted].max() > 0


def test_a_rectangle_needs_no_second_input_and_fills_the_view():
    way = framing((10, 20, 50, 40))
    assert not way.has_inside and way.has_region and way.view_shape == (40, 40, 3)
    image = np.zeros((*SIZE, 3), np.uint8)
    image[20:40, 10:50] = 200
    taken = way.take(image)
    assert (taken.views == 200).all() and taken.counted is None
    assert taken.boxes_to_original(np.array([[0, 0, 40, 40]])).tolist() == [[10, 20, 50, 40]]
    inside = taken.map_to_original(np.ones((40, 40), np.float32))
    assert inside.shape == SIZE and inside.sum() == 800 and inside[20:40, 10:50].all()
    assert taken.inspected().sum() == 800 and taken.pixel_area == pytest.approx(0.5)
    (edge,) = taken.edge()
    assert edge.min(axis=0).tolist() == [10, 20] and edge.max(axis=0).tolist() == [50, 40]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.integers(0, 30), st.integers(10, 40), st.integers(10, 30))
def test_boxes_lie_in_the_region(x, y, width, height):
    way = framing((x, y, x + width, y + height))
    taken = way.take(np.zeros((*SIZE, 3), np.uint8))
    for x1, y1, x2, y2 in taken.boxes_to_original(np.array([[0, 0, 9, 9], [31, 31, 40, 40]])):
        assert x <= x1 < x2 <= x + width and y <= y1 < y2 <= y + height


def test_other_sizes_than_the_region_was_drawn_for():
    with pytest.raises(ImageError, match="drawn for 60x80"):
        framing((10, 20, 50, 40)).take(np.zeros((30, 40, 3), np.uint8), name="a.png")


def test_a_region_is_the_same_in_a_reduced_jpeg(tmp_path):
    size = (480, 640)
    image = np.full((*size, 3), 90, np.uint8)
    cv2.circle(image, (300, 200), 60, (220, 200, 180), -1)
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
    way = framing((160, 80, 480, 400), (200, 100, 240, 140), size=size)
    photo = Photograph.read(path, way)
    assert photo.pixels.shape[:2] == (60, 80)
    difference = np.abs(photo.views().astype(int) - way.views(image))
    assert difference.mean() < 3


def table(x=0, y=0, level=60):
    image = np.full((100, 120, 3), level, np.uint8)
    cv2.rectangle(image, (30 + x, 30 + y), (80 + x, 60 + y), (200, 190, 180), -1)
    return image


def test_the_part_alone_wherever_it_lies():
    way = Framing.new(50, 60, 3, only_part=True)
    for x, y, level in ((0, 0, 60), (20, -10, 30), (-10, 20, 90)):
        taken = way.take(table(x, y, level))
        inspected = taken.inspected()
        assert inspected[32 + y : 58 + y, 32 + x : 78 + x].all()
        assert inspected.sum() < 2.1 * 50 * 30
        assert (taken.views[0][~taken.counted][:, :3] == 128).all()


def test_an_image_without_a_part():
    with pytest.raises(PoseError, match="no part stands out"):
        Framing.new(50, 60, 3, only_part=True).take(np.full((100, 120, 3), 90, np.uint8))
