"""Images in memory: the advice of an error is right, and what is certain is taken."""

import numpy as np
import pytest
from conftest import draw_part
from PIL import Image

from anomaly_ad.errors import ImageError, OptionError, PathError
from anomaly_ad.images import check_array
from anomaly_ad.images.sources import find_sources

PART = draw_part(0)
WIDE = PART[:40]

CONVERTIBLE = {
    "float 0..1": (PART / 255.0, 0),
    "float32 0..1": ((PART / 255).astype(np.float32), 0),
    "float -1..1": (PART / 127.5 - 1, 0),
    "float 0..255": (PART.astype(np.float32), 0),
    "16 bit": (PART.astype(np.uint16) * 257, 0),
    "14 bit": (PART.astype(np.uint16) * 64, 0),
    "12 bit": (PART.astype(np.uint16) * 16, 0),
    "10 bit": (PART.astype(np.uint16) * 4, 0),
    "8 bit in 16": (PART.astype(np.uint16), 0),
    "int64": (PART.astype(np.int64), 0),
    "gray float": (PART[..., 0] / 255, 0),
    "channels first": (np.moveaxis(WIDE, -1, 0), 0),
    "float a little beyond": (np.where(PART > 250, 1.0001, PART / 255), 0),
    "float a little below": (np.where(PART < 1, -0.001, PART / 255), 0),
    "bool": (PART > 127, None),
    "0 and 1": ((PART > 127).astype(np.int64), None),
}


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_the_advice_gives_the_image(name):
    array, error = CONVERTIBLE[name]
    with pytest.raises(ImageError) as raised:
        check_array(array)
    advice = str(raised.value).split("Convert it with: ")[1]
    converted = check_array(eval(advice, {"np": np, "image": array}))  # noqa: S307
    expected = WIDE if name == "channels first" else PART
    if error is None:
        np.testing.assert_array_equal(converted, (PART > 127) * np.uint8(255))
    else:
        gray = name.startswith("gray")
        np.testing.assert_array_equal(
            converted[..., :1] if gray else converted, expected[..., : 1 if gray else 3]
        )
    assert error is None or "0..255" in str(raised.value)


def test_stacks_get_advice_as_a_whole():
    first = np.moveaxis(np.stack([WIDE, WIDE]), -1, 1)
    with pytest.raises(
        ImageError, match=r"channels first\. Convert it with: np\.moveaxis\(image, -3"
    ):
        find_sources(first)
    with pytest.raises(ImageError, match=r"values 0 to 1 .*image \* 255"):
        find_sources(np.stack([PART / 255.0]))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((64, 64), np.nan), "not finite"),
        (np.full((64, 64), -3.0), r"values -3 to -3"),
        (np.zeros((64, 64), complex), "Pass numbers"),
        (np.zeros((64, 64, 2), np.uint8), "one image"),
        (np.zeros(64, np.uint8), "one image"),
    ],
)
def test_what_cannot_be_told(array, message):
    with pytest.raises(ImageError, match=message):
        check_array(array)


def test_images_of_pillow(tmp_path):
    image = Image.fromarray(PART)
    np.testing.assert_array_equal(check_array(image), PART)
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK"):
        expected = np.asarray(image.convert(mode).convert("RGB"))
        np.testing.assert_array_equal(check_array(image.convert(mode)), expected)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.crop((0, 0, 40, 64)).save(tmp_path / "a.png", exif=exif)
    turned = check_array(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(turned, np.rot90(PART[:, :40], -1))
    assert find_sources(image).single and not find_sources([image, image]).single
    with pytest.raises(ImageError, match="mode 'I;16'"):
        check_array(Image.fromarray(PART[..., 0].astype(np.uint16)))


def test_an_image_of_pillow_that_cannot_be_decoded(tmp_path):
    image = Image.fromarray(PART)
    image.save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-300])
    closed = Image.open(tmp_path / "a.jpg")
    closed.close()
    for odd in (Image.open(tmp_path / "cut.jpg"), closed):
        with pytest.raises(ImageError, match="cannot be decoded"):
            check_array(odd)


def _like(module, **attributes):
    """An object of another library, which need not be there."""
    kind = type(
        "Tensor", (), {"__module__": module, "__iter__": lambda self: iter(()), **attributes}
    )
    return kind()


@pytest.mark.parametrize(
    ("item", "advice"),
    [
        (_like("torch", shape=(3, 64, 64), dtype="float32"), r"torch\.Tensor.*detach\(\)\.cpu"),
        (_like("tensorflow.python", shape=(64, 64, 3), dtype="uint8"), r"image\.numpy\(\)"),
        (memoryview(PART), r"memoryview.*np\.asarray\(image\)"),
        (b"\xff\xd8", r"bytes.*os\.fsdecode"),
    ],
)
def test_other_objects_get_the_right_advice(item, advice):
    for given in (item, [item]):
        with pytest.raises(ImageError, match=advice):
            find_sources(given)


def test_lists_of_paths_of_any_kind(tmp_path):
    pandas = pytest.importorskip("pandas")
    names = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    for listed in (np.array(names), np.array(names, object), pandas.Series(names), tuple(names)):
        assert [source.name for source in find_sources(listed).items] == names
    with pytest.raises(OptionError, match=r"Received a table.*table\['path'\]"):
        find_sources(pandas.DataFrame({"path": names}))
    with pytest.raises(OptionError, match="holds paths, images, or pairs"):
        find_sources([3])
    with pytest.raises(PathError, match=r"a\.png: there is no such file"):
        find_sources(np.array(names[0]))
