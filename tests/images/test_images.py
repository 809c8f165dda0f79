import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_part, mutate, taken, write_image, write_parts
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import DataError, ImageError, OptionError, PathError
from anomaly_ad.images import (
    MAX_PIXELS,
    Framing,
    ImageSet,
    Photograph,
    check_array,
    find_images,
    find_training_images,
    read_image,
    split,
)
from anomaly_ad.inspection.regions import deviating_cells, marked
from anomaly_ad.model import Limit

# ------------------------------------------------------------------------------- Framing

sizes = st.tuples(st.integers(16, 300), st.integers(16, 300))
fits = st.sampled_from(["stretch", "pad"])


@given(sizes, sizes, st.sampled_from([1, 3]), fits)
@settings(max_examples=50, deadline=None)
def test_a_view_has_the_shape_of_the_framing_and_the_input_is_kept(image_size, size, channels, fit):
    image = np.random.default_rng(0).integers(0, 256, (*image_size, 3), dtype=np.uint8)
    before = image.copy()
    out = Framing(*size, channels, fit).views(image)[0]
    assert out.shape == (*size, channels) and out.dtype == np.uint8
    assert not np.shares_memory(out, image)
    np.testing.assert_array_equal(image, before)


@given(sizes, sizes, fits)
@settings(max_examples=100, deadline=None)
def test_boxes_of_the_whole_input_cover_the_whole_photograph(image_size, size, fit):
    framing = Framing(*size, 3, fit)
    boxes = taken(framing, image_size).boxes_to_original(np.array([[0, 0, size[1], size[0]]]))
    assert boxes.tolist() == [[0, 0, image_size[1], image_size[0]]]
    assert boxes.dtype == np.int32


@given(sizes, sizes, fits, st.data())
@settings(max_examples=100, deadline=None)
def test_boxes_lie_within_the_photograph(image_size, size, fit, data):
    x1, y1 = data.draw(st.integers(0, size[1] - 1)), data.draw(st.integers(0, size[0] - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, size[1])), data.draw(st.integers(y1 + 1, size[0]))
    boxes = taken(Framing(*size, 3, fit), image_size).boxes_to_original(
        np.array([[x1, y1, x2, y2]])
    )
    assert len(boxes) == 1 or fit == "pad"
    for a, b, c, d in boxes:
        assert 0 <= a < c <= image_size[1] and 0 <= b < d <= image_size[0]


def test_a_box_finds_the_spot_that_framing_moved():
    image = np.zeros((300, 100, 3), np.uint8)
    image[200:220, 40:60] = 255
    for fit in ("stretch", "pad"):
        framing = Framing(150, 150, 1, fit)
        ys, xs = np.nonzero(framing.views(image)[0][..., 0] > 128)
        box = np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]])
        found = taken(framing, (300, 100)).boxes_to_original(box)[0]
        np.testing.assert_allclose(found, [40, 200, 60, 220], atol=2)


def test_a_box_in_the_padding_is_left_out():
    framing = Framing(100, 100, 3, "pad")
    assert taken(framing, (200, 100)).boxes_to_original(np.array([[0, 0, 10, 100]])).shape == (0, 4)


@given(sizes, sizes)
@settings(max_examples=50, deadline=None)
def test_a_map_without_padding_has_its_peak_in_the_photograph(image_size, size):
    framing = Framing(*size, 3, "pad")
    peak_outside = np.zeros(size, np.float32)
    peak_outside[0, 0] = peak_outside[-1, -1] = 9
    inside = taken(framing, image_size).where_counted(peak_outside)
    assert np.isfinite(inside).any()
    marks = marked(inside, Limit(0, 100, 10, 0.1, 0.1), 0.8, is_anomalous=True)
    boxes = deviating_cells(marks, 16)
    assert len(taken(framing, image_size).boxes_to_original(boxes)) == len(boxes) > 0


def test_pad_keeps_the_aspect_ratio_and_repeats_the_border():
    image = np.full((50, 100, 3), 200, np.uint8)
    out = Framing(100, 100, 3, "pad").views(image)[0]
    assert (out == 200).all()


def test_map_to_original_inverts_the_padding():
    framing = Framing(64, 64, 3, "pad")
    array = np.zeros((64, 64), np.float32)
    array[16:48] = 1  # the photograph's place
    assert taken(framing, (128, 256)).map_to_original(array).shape == (128, 256)
    assert taken(framing, (128, 256)).map_to_original(array).min() > 0.5


@pytest.mark.parametrize(
    "arguments",
    [(0, 10, 3), (10.5, 20, 3), (64, 64, 2), (True, 64, 3), (99999, 64, 3), (64, 64, 3, "crop")],
)
def test_a_spec_that_cannot_be_is_refused(arguments):
    with pytest.raises(OptionError, match="Received"):
        Framing(*arguments)


# ----------------------------------------------------------------------------- read_image


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.jpg", "a.JPEG", "a.bmp"])
def test_kinds_of_files(tmp_path, name):
    image = draw_part(0)
    out = read_image(write_image(tmp_path / name, image))
    assert out.shape == image.shape and out.dtype == np.uint8
    np.testing.assert_allclose(out, image, atol=40 if "j" in name.lower() else 0)


def _encode(tmp_path, array, name="a.png"):
    path = tmp_path / name
    path.write_bytes(cv2.imencode(path.suffix, array)[1])
    return path


def test_gray_becomes_three_equal_channels(tmp_path):
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    out = read_image(_encode(tmp_path, gray))
    for channel in range(3):
        np.testing.assert_array_equal(out[..., channel], gray)


def test_alpha_is_ignored(tmp_path):
    image = np.dstack([draw_part(0)[..., ::-1], np.full((64, 64), 7, np.uint8)])
    np.testing.assert_array_equal(read_image(_encode(tmp_path, image)), image[..., 2::-1])


def test_models_of_former_versions_take_the_upper_8_of_16_bits(tmp_path):
    deep = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 255
    photo = Photograph.read(_encode(tmp_path, deep), Framing(16, 16, 1))
    np.testing.assert_array_equal(photo.views()[0, ..., 0], deep >> 8)
    np.testing.assert_array_equal(photo.picture()[..., 2], deep >> 8)


def test_palette(tmp_path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + bytes([y % 2] * 20) for y in range(20))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 3, 0, 0, 0))
    data += chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + chunk(b"IDAT", zlib.compress(rows))
    path = tmp_path / "palette.png"
    path.write_bytes(data + chunk(b"IEND", b""))
    out = read_image(path)
    assert out[0, 0].tolist() == [255, 0, 0] and out[1, 0].tolist() == [0, 0, 255]


def test_the_orientation_noted_by_the_camera_is_applied(tmp_path):
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :20] = 255
    data = cv2.imencode(".jpg", image)[1].tobytes()
    # APP1 with one entry, orientation 6: turn by 90 degrees clockwise to view
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    path = tmp_path / "turned.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    out = read_image(path)
    assert out.shape == (40, 20, 3)
    assert out[:15].mean() > 200 and out[25:].mean() < 50


def _bomb():
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))


BROKEN = {
    "text.jpg": (lambda _: b"not an image", "not an image that can be read"),
    "empty.png": (lambda _: b"", "is empty"),
    "bomb.png": (lambda _: _bomb(), f"at most {MAX_PIXELS:,}"),
    "cut.jpg": (lambda i: cv2.imencode(".jpg", i)[1].tobytes()[:-200], "damaged or cut off"),
    "cut.png": (lambda i: cv2.imencode(".png", i)[1].tobytes()[:-200], "damaged or cut off"),
    "cut.bmp": (lambda i: cv2.imencode(".bmp", i)[1].tobytes()[:-200], "damaged or cut off"),
    "header.jpg": (lambda _: b"\xff\xd8\xff\xe0", "not an image that can be read"),
    "one.png": (lambda i: cv2.imencode(".png", i[:1, :1])[1].tobytes(), "at least 16"),
    "gif.png": (lambda _: b"GIF89a" + bytes(100), "not an image that can be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path, name):
    make, message = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(make(draw_part(0)))
    with pytest.raises(ImageError, match=message) as error:
        read_image(path)
    assert name in str(error.value) or "header" in name


def test_what_is_no_file(tmp_path):
    with pytest.raises(PathError, match="no such file"):
        read_image(tmp_path / "missing.png")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(PathError, match=r"folder\.jpg"):
        read_image(tmp_path / "folder.jpg")


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"BM", b"\x89PNG\r\n\x1a\n"]))
@settings(max_examples=200, deadline=None)
def test_bytes_of_any_kind_raise_nothing_else(tmp_path_factory, data, beginning):
    path = tmp_path_factory.getbasetemp() / "any.png"
    path.write_bytes(beginning + data)
    with pytest.raises(ImageError):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_mutated_images_raise_nothing_else(tmp_path_factory, suffix, data):
    """A damaged image is an error or still an image, and then one that a model can take."""
    part = draw_part(0, size=48)
    path = tmp_path_factory.getbasetemp() / f"mutated{suffix}"
    path.write_bytes(mutate(cv2.imencode(suffix, part)[1].tobytes(), data))
    try:
        image = read_image(path)
    except ImageError as error:
        assert str(path) in str(error)
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert Framing(32, 32, 1).views(image)[0].shape == (32, 32, 1)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64, 2), np.uint8),
        np.zeros(64, np.uint8),
        np.zeros((2, 64, 64, 3), np.uint8),
        np.zeros((64, 64), np.uint16),
        np.zeros((0, 64, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_image(array):
    with pytest.raises(ImageError):
        check_array(array)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4)])
def test_arrays_become_rgb(shape):
    assert check_array(np.full(shape, 9, np.uint8)).tolist() == np.full((20, 30, 3), 9).tolist()


# ----------------------------------------------------------------------------- find files


def test_find_images_in_any_case_and_depth_in_order(tmp_path):
    for name in ("b.png", "a.JPG", "sub/c.bmp", "sub/deep/d.jpeg", ".hidden/x.png", "._a.jpg"):
        write_parts(tmp_path / "made", 0)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.jpg").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == ["a.JPG", "b.png", "sub/c.bmp", "sub/deep/d.jpeg"]


def test_links_are_followed_and_loops_are_not(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").touch()
    (tmp_path / "data" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "self.png").symlink_to(tmp_path / "data" / "self.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").touch()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    assert [path.name for path in find_images(tmp_path / "data")] == ["a.png", "self.png", "b.png"]


def test_a_missing_folder(tmp_path):
    with pytest.raises(PathError, match="no such folder"):
        find_images(tmp_path / "missing")


def test_what_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = write_image(tmp_path / "a.png", draw_part(0))
    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read all, so it is made up
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PathError, match=r"a\.png.*Permission denied"):
        read_image(path)
    with pytest.raises(PathError, match=r"cannot be listed \(Permission denied"):
        find_images(tmp_path)


# ------------------------------------------------------------- what training may learn from

# files that exist, where it points, and what is taken (None: refused, with this in the message)
LAYOUTS = {
    "flat": (["1.png", "2.JPG"], "", ["1.png", "2.JPG"]),
    "train next to test": (["Train/1.png", "Test/2.png"], "", ["Train/1.png"]),
    "only good of train": (["train/good/1.png", "train/crack/2.png"], "", ["train/good/1.png"]),
    "train wins over images": (["TRAIN/1.png", "2.png"], "", ["TRAIN/1.png"]),
    "pointed at train": (["Train/1.png", "Test/2.png"], "Train", ["Train/1.png"]),
    "good next to kinds": (["good/1.png", "crack/2.png"], "", ["good/1.png"]),
    "good in the test folder": (["test/good/1.png", "test/cut/2.png"], "test", ["test/good/1.png"]),
    "folders that say nothing": (["cam1/1.png", "cam2/2.png"], "", "several folders"),
    "test only": (["test/1.png", "2.png"], "", "test"),
    "ground truth": (["ground_truth/1.png", "2.png"], "", "ground_truth"),
    "good next to bad": (["Bad/1.png", "good/2.png"], "", ["good/2.png"]),
    "defects": (["defective/1.png", "2.png"], "", "defective"),
    "defects in train": (["train/defect/1.png", "train/2.png"], "", "defect"),
    "deep test": (["part/train/1.png", "part/test/2.png"], "", "test"),
    "pointed at test": (["Test/1.png"], "Test", "does not hold only good parts"),
    "nothing": (["a.txt"], "", "holds no images"),
    "empty train": (["train/a.txt", "1.png"], "", "holds no images"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_folders_of_good_parts(tmp_path, name):
    files, pointed_at, expected = LAYOUTS[name]
    root = tmp_path / "data"
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            find_training_images(root / pointed_at)
    else:
        found = find_training_images(root / pointed_at)
        assert [path.relative_to(root).as_posix() for path in found.paths] == expected
        assert str(len(expected)) in str(found) and str(found.folder) in str(found)


def test_two_train_folders_are_ambiguous(tmp_path):
    (tmp_path / "train").mkdir()
    try:
        (tmp_path / "Train").mkdir()
    except FileExistsError:
        pytest.skip("the file system ignores case")
    with pytest.raises(DataError, match="which one"):
        find_training_images(tmp_path)


def test_a_list_is_taken_as_it_is(tmp_path):
    paths = [tmp_path / "bad.png", str(tmp_path / "b.png")]
    for path in paths:
        write_image(tmp_path / path, draw_part(0))
    assert find_training_images(paths).paths == (tmp_path / "bad.png", tmp_path / "b.png")
    with pytest.raises(PathError, match=r"missing\.png"):
        find_training_images([tmp_path / "missing.png"])
    with pytest.raises(DataError, match="empty"):
        find_training_images([])
    with pytest.raises(OptionError, match="list of paths"):
        find_training_images(7)


def test_a_file_is_no_folder_of_good_parts(tmp_path):
    with pytest.raises(DataError, match="is a file"):
        find_training_images(write_image(tmp_path / "a.png", draw_part(0)))


# ------------------------------------------------------------------------------- ImageSet


def test_image_set_holds_the_views(tmp_path):
    framing = Framing(32, 48, 1)
    paths = find_images(write_parts(tmp_path, 40))
    with ImageSet.decode(paths, framing) as images:
        assert len(images) == 40
        expected = np.concatenate([framing.views(read_image(path)) for path in paths])
        for _ in range(2):  # re-iterable
            np.testing.assert_array_equal(np.concatenate(list(images)), expected)
        part = images.subset(np.array([3, 30]))
        np.testing.assert_array_equal(part[np.array([1, 0])], expected[[30, 3]])
        np.testing.assert_array_equal(np.concatenate(list(part)), expected[[3, 30]])
        file = images._items._file
        assert not file.closed
    assert file.closed


def test_image_set_lists_every_broken_file(tmp_path):
    paths = find_images(write_parts(tmp_path, 3))
    (tmp_path / "x.png").write_text("x")
    (tmp_path / "y.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)2 of 5 .*x\.png.*y\.jpg"):
        ImageSet.decode([*paths, tmp_path / "x.png", tmp_path / "y.jpg"], Framing(32, 32, 3))


@given(st.integers(3, 500), st.integers(0, 2**31 - 1))
def test_split_is_disjoint_complete_and_seeded(count, seed):
    parts = split(count, [count // 5, 1], seed)
    assert sorted(np.concatenate(parts)) == list(range(count))
    assert [len(part) for part in parts[1:]] == [count // 5, 1]
    for first, second in zip(parts, split(count, [count // 5, 1], seed), strict=True):
        np.testing.assert_array_equal(first, second)


def test_split_of_too_few():
    with pytest.raises(OptionError):
        split(3, [2, 1], 0)
