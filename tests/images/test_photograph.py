"""Photographs: read no larger than a model needs them, shown in full; and surveys of sets."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from conftest import draw_part, write_image
from PIL import Image as PilImage

from anomaly_ad.errors import ImageError
from anomaly_ad.images import Framing, Photograph, decoding, survey

FRAMING = Framing.new(40, 50, 3)
DEEP = replace(FRAMING, value_range=(0, 4095), deep=True)


@pytest.fixture
def jpeg(tmp_path):
    large = cv2.resize(draw_part(1, size=256), (423, 331), interpolation=cv2.INTER_CUBIC)
    return write_image(tmp_path / "large.jpg", large)


# ------------------------------------------------------------------------------ reduced scale


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_large_jpeg_is_reduced_and_its_views_are_nearly_the_same(jpeg, fit):
    framing = Framing.new(40, 50, 3, fit)
    photo = Photograph.read(jpeg, framing)
    assert photo.size == (331, 423) and photo.pixels.shape == (42, 53, 3)
    full = Photograph.read(jpeg, replace(framing, reduces=False))
    assert full.pixels.shape == (331, 423, 3)
    difference = np.abs(photo.views().astype(int) - full.views())
    assert difference.mean() < 3 and photo.views().shape == full.views().shape


@pytest.mark.parametrize(("side", "divisor"), [(40, 8), (42, 4), (83, 2), (166, 1), (331, 1)])
def test_it_is_reduced_to_no_less_than_the_view(jpeg, side, divisor):
    photo = Photograph.read(jpeg, Framing.new(side, 20, 3))
    assert photo.pixels.shape[0] == -(-331 // divisor)


def test_a_picture_is_as_large_as_it_is_asked_for(jpeg):
    photo = Photograph.read(jpeg, FRAMING)
    full = Photograph.read(jpeg, replace(FRAMING, reduces=False)).pixels
    np.testing.assert_array_equal(photo.picture(), full)
    assert photo.picture((30, 30)) is photo.pixels
    assert photo.picture((100, 120)).shape == (166, 212, 3)


def test_what_is_not_reduced_is_decoded_once(tmp_path, monkeypatch):
    photo = Photograph.read(write_image(tmp_path / "a.png", draw_part(0)), FRAMING)
    monkeypatch.setattr(decoding, "open_header", None)  # nothing can be decoded any more
    assert photo.picture() is photo.pixels and photo.data is None


def test_the_file_may_change_while_it_is_looked_at(jpeg):
    photo = Photograph.read(jpeg, FRAMING)
    expected = photo.picture()
    jpeg.unlink()
    np.testing.assert_array_equal(photo.picture(), expected)


def test_views_do_not_depend_on_the_way(jpeg):
    read = Photograph.read(jpeg, FRAMING).views()
    sent = Photograph.decode(jpeg.read_bytes(), "x", FRAMING).views()
    np.testing.assert_array_equal(read, sent)


# ------------------------------------------------------------------------------ deep in memory


@pytest.mark.parametrize("kind", [np.uint16, ">u2", np.int32, np.float32, np.float64])
def test_arrays_of_more_than_8_bits(kind):
    levels = draw_part(0)
    deep = (levels.astype(np.float64) * 4095 / 255).astype(kind)
    before = deep.copy()
    photo = Photograph.of_array(deep, DEEP)
    assert np.abs(photo.picture().astype(int) - levels).max() <= 1
    gray = Photograph.of_array(deep[..., 0], DEEP).views()
    assert gray.shape == (1, 40, 50, 3) and (gray[..., 0] == gray[..., 2]).all()
    np.testing.assert_array_equal(deep, before)
    with pytest.raises(ImageError, match="An image array is uint8"):
        Photograph.of_array(deep, FRAMING)


def test_arrays_that_are_refused_by_a_deep_model():
    broken = np.ones((40, 40), np.float32)
    broken[3, 3] = np.nan
    with pytest.raises(ImageError, match=r"The array holds 1 values that are not numbers"):
        Photograph.of_array(broken, DEEP)
    for array in (np.zeros((40, 40), bool), np.zeros((40, 40, 2), np.uint16), np.zeros((3, 3))):
        with pytest.raises(ImageError):
            Photograph.of_array(array, DEEP)
    with pytest.raises(ImageError, match="The array has 8 bits, and the model's training images"):
        Photograph.of_array(np.tile(np.uint8([[0, 250]]), (40, 20)), DEEP).views()
    with pytest.raises(ImageError, match="NaN, infinite, or beyond what 32 bits hold"):
        Photograph.of_array(np.full((40, 40), 1e300), DEEP)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pil_images_of_more_than_8_bits(mode):
    values = np.arange(1600, dtype=np.uint16).reshape(40, 40)
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    image = PilImage.fromarray(values.astype(kind))
    assert image.mode == mode
    np.testing.assert_array_equal(Photograph.of_array(image, DEEP).pixels[..., 0], values)
    with pytest.raises(ImageError, match="A PIL image has 8 bits"):
        Photograph.of_array(image, FRAMING)


# -------------------------------------------------------------------------------------- survey


def tiffs(folder, values, count=5, **options):
    folder.mkdir(exist_ok=True)
    for number in range(count):
        tifffile.imwrite(folder / f"{number}.tif", values + number, **options)
    return sorted(folder.iterdir())


def test_a_survey_of_images_of_8_bits(tmp_path):
    paths = [write_image(tmp_path / f"{n}.png", draw_part(n)) for n in range(3)]
    found = survey(paths)
    assert (found.value_range, found.depth) == (None, "")
    assert found.sizes == ((64, 64),) * 3


def test_a_survey_learns_the_values_of_deep_images(tmp_path):
    values = np.linspace(500, 3500, 6400).reshape(80, 80).astype(np.uint16)
    paths = tiffs(tmp_path / "deep", values)
    (tmp_path / "deep" / "9.tif").write_bytes(b"II*\0broken")
    found = survey([*paths, tmp_path / "deep" / "9.tif"])
    low, high = found.value_range
    assert 150 < low < 250 and 3750 < high < 3850
    assert found.depth == "16 bit gray" and found.sizes == ((80, 80),) * 5
    assert survey(paths, values=False).value_range is None


def test_a_survey_goes_with_most_images(tmp_path):
    """The few others are errors when they are read, one by one."""
    values = np.linspace(500, 3500, 6400).reshape(80, 80).astype(np.uint16)
    deep = tiffs(tmp_path / "deep", values, count=3)
    plain = [write_image(tmp_path / f"{n}.png", draw_part(n)) for n in range(4)]
    assert survey([*deep, *plain]).depth == ""
    found = survey([*deep, *plain[:2]])
    assert found.depth == "16 bit gray" and found.value_range[1] > 3500


def test_a_survey_of_deep_images_that_cannot_be_read(tmp_path):
    paths = tiffs(tmp_path / "deep", np.full((80, 80), np.nan, np.float32))
    found = survey(paths)
    assert found.value_range is None and found.depth == "float 32 bit gray"


def test_what_was_drawn_into_a_picture_is_what_the_model_takes():
    for framing in (FRAMING, DEEP, replace(FRAMING, value_range=(30, 180)), Framing(40, 50, 1)):
        picture = draw_part(3)
        photo = Photograph.of_picture(picture, framing, "x")
        plain = Framing.new(40, 50, framing.channels).views(picture)
        np.testing.assert_array_equal(photo.views(), plain)
        assert photo.picture() is picture


def test_pages_are_counted_unless_one_is_named(tmp_path):
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path) as file:
        for _ in range(2):
            file.write(draw_part(0), photometric="rgb")
    assert Photograph.read(path, FRAMING).n_pages == 2
    assert Photograph.read(f"{path}[0]", FRAMING).n_pages == 1
