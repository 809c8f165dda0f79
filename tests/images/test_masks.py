"""What is marked in a mask, whatever program drew it."""

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from anomaly_ad.errors import ImageError
from anomaly_ad.images import read_mask

MARKED = np.zeros((64, 80), bool)
MARKED[10:30, 15:40] = True
_COLUMNS = np.indices(MARKED.shape)[1]
_CLASSES = MARKED * 1 + (MARKED & (_COLUMNS > 25))
OPAQUE = np.full(MARKED.shape, 255, np.uint8)
VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [0] * 756


def palette(values):
    image = Image.fromarray(values.astype(np.uint8), "P")
    image.putpalette(VOC)
    return image


def rgba(colour, ground=(0, 0, 0)):
    pixels = np.zeros((*MARKED.shape, 4), np.uint8)
    pixels[..., :3] = np.where(MARKED[..., None], colour, ground)
    pixels[..., 3] = MARKED * 255
    return pixels


def colours(*some):
    pixels = np.zeros((*MARKED.shape, 3), np.uint8)
    for number, colour in enumerate(some):
        pixels[MARKED & (_COLUMNS % len(some) == number)] = colour
    return pixels


KINDS = {
    "0 and 255": MARKED * np.uint8(255),
    "0 and 1": MARKED * np.uint8(1),
    "0 and 2": MARKED * np.uint8(2),
    "classes": _CLASSES.astype(np.uint8),
    "classes and void": np.where(MARKED & (_COLUMNS < 17), 255, _CLASSES).astype(np.uint8),
    "palette": palette(MARKED),
    "palette of classes": palette(_CLASSES),
    "one bit": Image.fromarray(MARKED),
    "red": colours((255, 0, 0)),
    "dark blue": colours((0, 0, 3)),
    "three colours": colours((255, 0, 0), (0, 255, 0), (0, 0, 90)),
    "16 bit, 0 and 1": MARKED.astype(np.uint16),
    "16 bit, 0 and 255": MARKED.astype(np.uint16) * 255,
    "16 bit, 0 and 65535": MARKED.astype(np.uint16) * 65535,
    "red on transparent": rgba((255, 0, 0)),
    "black on transparent": rgba((0, 0, 0)),
    "white on transparent white": rgba((255, 255, 255), (255, 255, 255)),
    "opaque with an alpha channel": np.dstack(
        [colours((9, 0, 0)), np.full(MARKED.shape, 255, np.uint8)]
    ),
    "nothing marked": MARKED * np.uint8(0),
}


@pytest.mark.parametrize("name", KINDS)
def test_anything_but_background_is_marked(tmp_path, name):
    image = KINDS[name]
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(tmp_path / "mask.png")
    expected = MARKED & (name != "nothing marked")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif", ".webp"])
def test_other_formats(tmp_path, suffix):
    path = tmp_path / f"mask{suffix}"
    path.write_bytes(cv2.imencode(suffix, MARKED * np.uint8(255))[1])
    np.testing.assert_array_equal(read_mask(path), MARKED)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_white_in_a_tiff_is_marked(tmp_path, photometric, kind):
    """Whichever value is white: programs write both."""
    shown = MARKED * kind(np.iinfo(kind).max)
    stored = shown if photometric == "minisblack" else kind(np.iinfo(kind).max) - shown
    tifffile.imwrite(tmp_path / "m.tif", stored.astype(kind), photometric=photometric)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), MARKED)


def test_of_smooth_edges_half_is_the_limit(tmp_path):
    large = np.kron(MARKED, np.ones((8, 8), np.uint8)) * 255
    soft = cv2.GaussianBlur(large, (9, 9), 2)
    assert len(np.unique(soft)) > 32
    cv2.imwrite(str(tmp_path / "mask.png"), soft)
    assert (read_mask(tmp_path / "mask.png") != (large > 0)).mean() < 0.002


def test_class_numbers_in_a_jpeg_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "mask.jpg"), _CLASSES.astype(np.uint8))
    with pytest.raises(ImageError, match=r"largest value is [0-9]+, and JPEG changes small values"):
        read_mask(tmp_path / "mask.jpg")


AT_THE_BORDER = np.ones((100, 120), np.uint8)
AT_THE_BORDER[60:, 40:80] = 0  # the defect, marked with 0

REFUSED = {
    "inverted, at the border": (AT_THE_BORDER * np.uint8(255), "inverted"),
    "all transparent": (np.dstack([colours((255, 255, 255)), OPAQUE * 0]), "transparent"),
    "inverted": (~MARKED * np.uint8(255), "inverted"),
    "inverted with 1": (~MARKED * np.uint8(1), "inverted"),
    "all marked": (
        np.full((64, 80), 255, np.uint8),
        "all its pixels are marked; it has the values 255",
    ),
    "classes from 1": ((MARKED + 1).astype(np.uint8), "all its pixels are marked; .* values 1, 2"),
    "two colours, none black": (
        np.where(MARKED[..., None], (255, 255, 0), (60, 0, 80)).astype(np.uint8),
        r"all its pixels are marked; it has the values \(",
    ),
    "a photograph": (np.random.default_rng(0).integers(0, 255, (64, 80), np.uint8), "photograph"),
    "a colour photograph": (
        np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8),
        "photograph",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_mask_is_an_error_that_says_what_was_found(tmp_path, name):
    array, found = REFUSED[name]
    Image.fromarray(array).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match=rf"mask\.png is not a mask: .*{found}"):
        read_mask(tmp_path / "mask.png")


def test_a_mask_that_covers_most_of_the_image_is_no_inverted_one(tmp_path):
    large = np.zeros((64, 80), np.uint8)
    large[4:60, 4:76] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), large)
    assert read_mask(tmp_path / "mask.png").mean() > 0.7


def test_ringing_of_a_jpeg_that_was_saved_as_png(tmp_path):
    data = cv2.imencode(".jpg", MARKED * np.uint8(255), [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    cv2.imwrite(str(tmp_path / "mask.png"), cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), MARKED)


def test_a_thin_soft_scratch(tmp_path):
    line = np.zeros((64, 64), np.uint8)
    cv2.line(line, (5, 5), (60, 40), 255, 2, cv2.LINE_AA)
    cv2.imwrite(str(tmp_path / "mask.png"), cv2.GaussianBlur(line, (5, 5), 1))
    assert 0.01 < read_mask(tmp_path / "mask.png").mean() < 0.06


def test_a_damaged_mask_is_refused_like_an_image(tmp_path):
    noise = np.random.default_rng(0).integers(1, 3, (100, 100, 3), np.uint8) * 100
    data = cv2.imencode(".bmp", noise)[1].tobytes()
    stop = len(data) // 2 + 150
    (tmp_path / "mask.bmp").write_bytes(data[:stop] + bytes(len(data) - stop))
    with pytest.raises(ImageError, match="damaged"):
        read_mask(tmp_path / "mask.bmp")
