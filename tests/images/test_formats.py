"""Files: every format to the bit, damage that is seen, and what is no damage."""

import io
import itertools
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from conftest import draw_part
from PIL import Image as PilImage
from PIL import ImageOps

from anomaly_ad.errors import ImageError, ImageTooLargeError, PathError
from anomaly_ad.images import decode_image, decode_with_header, read_image, stored_as
from anomaly_ad.images.formats import FORMATS

PART = draw_part(3, size=203)[:, :181]
PART[:60, :80] = (200, 30, 40)
NOISE = np.random.default_rng(0).normal(0, 6, (300, 300, 3))
NOISY = np.clip(draw_part(5, size=300) + NOISE, 0, 255).astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    image = image if isinstance(image, PilImage.Image) else PilImage.fromarray(image)
    image.save(out, kind, **options)
    return out.getvalue()


def encoded(suffix, image, *options):
    return cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), list(options))[1].tobytes()


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


# ------------------------------------------------------------------- the same as OpenCV reads

RGBA = np.dstack([PART, np.full(PART.shape[:2], 255, np.uint8)])
RGBA[:50, :, 3], RGBA[50:90, :, 3] = 0, 100
WHOLE = PilImage.fromarray(PART)
GRAY = WHOLE.convert("L")
DEEP = np.asarray(GRAY).astype(np.uint16) * 251 + 17

ODD = {
    f"jpeg {mode} {' '.join(map(str, options.values()))}": saved(
        WHOLE.convert(mode), "JPEG", **options
    )
    for mode, options in itertools.product(
        ("RGB", "L", "CMYK"),
        (
            {"quality": 90},
            {"quality": 90, "subsampling": 0},
            {"quality": 90, "subsampling": 1},
            {"quality": 75, "progressive": True},
            {"quality": 30, "optimize": True},
            {"quality": 90, "keep_rgb": True},
        ),
    )
}
ODD |= {
    "jpeg restarts": encoded(".jpg", PART, cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    "jpeg one pixel wide blocks": encoded(".jpg", PART[:17, :17]),
    "png gray": saved(GRAY, "PNG"),
    "png 1 bit": saved(WHOLE.convert("1"), "PNG"),
    "png palette": saved(WHOLE.quantize(17), "PNG"),
    "png palette of 4": saved(WHOLE.quantize(4), "PNG"),
    "png colour": saved(WHOLE, "PNG"),
    "png alpha": saved(RGBA, "PNG"),
    "png gray alpha": saved(PilImage.fromarray(RGBA).convert("LA"), "PNG"),
    "png transparent palette": saved(WHOLE.quantize(9), "PNG", transparency=bytes(range(9))),
    "png transparent colour": saved(WHOLE, "PNG", transparency=(200, 30, 40)),
    "png transparent gray": saved(GRAY, "PNG", transparency=90),
    "bmp": saved(WHOLE, "BMP"),
    "bmp gray": saved(GRAY, "BMP"),
    "bmp 1 bit": saved(WHOLE.convert("1"), "BMP"),
    "bmp palette": saved(WHOLE.quantize(17), "BMP"),
    "bmp alpha": saved(RGBA, "BMP"),
    "tiff": saved(WHOLE, "TIFF"),
    "tiff gray": saved(GRAY, "TIFF"),
    "tiff 1 bit": saved(WHOLE.convert("1"), "TIFF"),
    "tiff group 4": saved(WHOLE.convert("1"), "TIFF", compression="group4"),
    "tiff palette": saved(WHOLE.quantize(17), "TIFF"),
    "tiff lzw": saved(WHOLE, "TIFF", compression="tiff_lzw"),
    "tiff deflate": saved(WHOLE, "TIFF", compression="tiff_adobe_deflate"),
    "tiff packbits": saved(WHOLE, "TIFF", compression="packbits"),
    "tiff jpeg": saved(WHOLE, "TIFF", compression="jpeg"),
    "tiff cmyk": saved(WHOLE.convert("CMYK"), "TIFF"),
    "webp": saved(WHOLE, "WEBP", quality=80),
    "webp lossless": saved(WHOLE, "WEBP", lossless=True),
    "webp alpha": saved(RGBA, "WEBP", lossless=True),
    "jp2": saved(WHOLE, "JPEG2000"),
    "jp2 gray": saved(GRAY, "JPEG2000"),
    "jp2 lossy": saved(WHOLE, "JPEG2000", irreversible=True, quality_layers=[30]),
    "jp2 stream": saved(WHOLE, "JPEG2000", no_jp2=True),
    "pgm": saved(GRAY, "PPM"),
    "ppm": saved(WHOLE, "PPM"),
}


@pytest.mark.parametrize("name", ODD)
def test_pixels_are_those_of_opencv(name):
    data = bytes(ODD[name])
    image = decode_image(data, name)
    np.testing.assert_array_equal(image, by_opencv(data))
    assert image.flags.c_contiguous and image.dtype == np.uint8
    header = stored_as(data)
    assert (header.height, header.width) == image.shape[:2]
    np.testing.assert_array_equal(image, decode_image(data + bytes(5000), name))


COLOUR = np.dstack([DEEP, DEEP // 2, DEEP // 3])
SHALLOW = DEEP >> 4  # 12 bits


def deep_tiff(image, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, image, **options)
    return out.getvalue()


def packed(values, bits):
    """A TIFF of 10, 12 or 14 bits a value, rows padded to whole bytes."""
    split = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(split.reshape(len(values), -1).astype(np.uint8), axis=1)
    out = io.BytesIO(deep_tiff(rows, photometric="minisblack"))
    with tifffile.TiffFile(out, mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(values.shape[1])
        file.pages[0].tags["BitsPerSample"].overwrite(bits)
    return out.getvalue()


def pam(magic, image, largest):
    head = f"{magic}\n{image.shape[1]} {image.shape[0]}\n{largest}\n".encode()
    return head + image.astype(">u2").tobytes()


FLOATS = (DEEP / 65535).astype(np.float32)
RGB = {"photometric": "rgb"}
STORED = {
    "png": (saved(PilImage.fromarray(DEEP), "PNG"), DEEP),
    "png colour": (cv2.imencode(".png", COLOUR[..., ::-1])[1], COLOUR),
    "png alpha": (cv2.imencode(".png", np.dstack([COLOUR[..., ::-1], DEEP]))[1], COLOUR),
    "tiff": (deep_tiff(DEEP), DEEP),
    "tiff colour": (deep_tiff(COLOUR, **RGB), COLOUR),
    "tiff big-endian": (deep_tiff(DEEP, byteorder=">"), DEEP),
    "bigtiff": (deep_tiff(COLOUR, bigtiff=True, **RGB), COLOUR),
    "bigtiff big-endian": (deep_tiff(DEEP, bigtiff=True, byteorder=">"), DEEP),
    "bigtiff of 8 bits": (deep_tiff(PART, bigtiff=True, **RGB), PART),
    "tiff lzw": (cv2.imencode(".tif", DEEP, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1], DEEP),
    "tiff deflate": (deep_tiff(COLOUR, compression="zlib", predictor=2, **RGB), COLOUR),
    "tiff tiles": (deep_tiff(DEEP, compression="zlib", tile=(64, 64)), DEEP),
    "tiff strips": (deep_tiff(DEEP, rowsperstrip=7), DEEP),
    "tiff alpha": (
        deep_tiff(np.dstack([COLOUR, DEEP * 0 + 65535]), extrasamples=["unassalpha"], **RGB),
        COLOUR,
    ),
    "tiff white is 0": (deep_tiff(DEEP, photometric="miniswhite"), 65535 - DEEP),
    "tiff float": (deep_tiff(FLOATS), FLOATS),
    "tiff float colour": (deep_tiff(np.dstack([FLOATS] * 3), **RGB), np.dstack([FLOATS] * 3)),
    "tiff double": (deep_tiff(FLOATS.astype(np.float64)), FLOATS),
    "tiff signed": (deep_tiff((DEEP // 2).astype(np.int16) - 99), DEEP // 2 - np.float32(99)),
    "tiff signed 32 bit": (deep_tiff(DEEP.astype(np.int32) * -9), DEEP.astype(np.float32) * -9),
    "tiff 10 bit": (packed(DEEP >> 6, 10), DEEP >> 6),
    "tiff 12 bit": (packed(SHALLOW, 12), SHALLOW),
    "tiff 14 bit": (packed(DEEP >> 2, 14), DEEP >> 2),
    "jp2": (saved(PilImage.fromarray(DEEP), "JPEG2000"), DEEP),
    "pgm": (pam("P5", DEEP, 65535), DEEP),
    "pgm 12 bit": (pam("P5", SHALLOW, 4095), SHALLOW),
    "ppm": (pam("P6", COLOUR, 65535), COLOUR),
}


@pytest.mark.parametrize("name", STORED)
def test_of_more_than_8_bits_values_are_kept(name):
    data, expected = STORED[name]
    image, header = decode_with_header(bytes(data), name)
    kind = np.float32 if expected.dtype.kind == "f" else expected.dtype
    assert image.dtype == kind and image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)
    assert header.is_deep == (kind != np.uint8) and header.size == expected.shape[:2]
    assert header.n_pages == 1


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_deep_files_that_are_cut_off_are_errors(name, share):
    data = bytes(STORED[name][0])
    with pytest.raises(ImageError, match=r"damaged or cut off|not an image"):
        decode_image(data[: int(share * len(data))], "x")


@pytest.mark.parametrize("name", ["tiff", "tiff colour", "pgm", "ppm"])
def test_deep_pixels_that_were_never_written_are_errors(name):
    data = bytearray(STORED[name][0])
    end = len(data)
    if "tiff" in name:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            end = file.pages[0].dataoffsets[-1] + file.pages[0].databytecounts[-1]
    middle = len(data) // 2 + 101
    data[middle:end] = bytes(end - middle)
    with pytest.raises(ImageError, match="ends in its middle, and nothing follows"):
        decode_image(bytes(data), "x")


@pytest.mark.parametrize("image", [DEEP, COLOUR], ids=["gray", "colour"])
@pytest.mark.parametrize("moved", [[], [2, 0, 1]], ids=["in order", "in another order"])
def test_strips_are_found_wherever_they_lie(image, moved):
    """What lies in the file as it is needed is not copied; the rest is put together."""
    rgb = RGB if image.ndim == 3 else {}
    data = deep_tiff(image, rowsperstrip=68, byteorder="<", **rgb)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        starts, sizes = page.dataoffsets, page.databytecounts
    assert len(starts) == 3
    if moved:
        parts = [data[a : a + n] for a, n in zip(starts, sizes, strict=True)]
        at = {n: len(data) + sum(len(parts[m]) for m in moved[: moved.index(n)]) for n in moved}
        out = io.BytesIO(data + b"".join(parts[n] for n in moved))
        with tifffile.TiffFile(out, mode="r+b") as file:
            file.pages[0].tags["StripOffsets"].overwrite([at[n] for n in range(3)])
        data = out.getvalue()
    found = decode_image(data, "x")
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_deep_tiff_is_applied(orientation):
    data = deep_tiff(DEEP, extratags=[(274, 3, 1, orientation, True)])
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    upright = ImageOps.exif_transpose(PilImage.open(io.BytesIO(saved(GRAY, "TIFF", exif=exif))))
    image, header = decode_with_header(data, "a")
    assert header.size == image.shape
    np.testing.assert_array_equal((image - 17) // 251, np.asarray(upright))


def test_unsigned_values_of_32_bits_need_opencv_5():
    data, values = deep_tiff(DEEP.astype(np.uint32) * 9), DEEP.astype(np.float32) * 9
    if int(cv2.__version__.partition(".")[0]) >= 5:
        np.testing.assert_array_equal(decode_image(data, "x"), values)
    else:
        with pytest.raises(ImageError, match=r"x: is a TIFF of 32 bits, which is not read"):
            decode_image(data, "x")


def test_values_that_are_not_finite_are_an_error():
    broken = FLOATS.copy()
    broken[3, 5], broken[9, 9] = np.nan, np.inf
    with pytest.raises(ImageError, match=r"x: 2 of its values are not numbers \(NaN or infinite\)"):
        decode_image(deep_tiff(broken), "x")


# --------------------------------------------------------------------------------------- pages


def pages(tmp_path, **options):
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path, **options) as file:
        file.write(PART, photometric="rgb")
        file.write(DEEP, subfiletype=1)  # a reduced image, which is no page
        file.write(DEEP)
        file.write(FLOATS[:40, :50])
    return path


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}], ids=str)
def test_each_page_of_a_tiff_has_a_name(tmp_path, options):
    path = pages(tmp_path, **options)
    assert decode_with_header(path.read_bytes(), "x")[1].n_pages == 3
    for name, expected in {"": PART, "[0]": PART, "[1]": DEEP, "[2]": FLOATS[:40, :50]}.items():
        np.testing.assert_array_equal(read_image(f"{path}{name}"), expected)
    with pytest.raises(ImageError, match=r"tif\[3\]: there is no page 3: it has 3 pages, counted"):
        read_image(f"{path}[3]")
    with pytest.raises(PathError, match="no such file"):
        read_image(tmp_path / "other.tif[0]")
    path.rename(f"{path}[9]")  # a file that is really called so
    np.testing.assert_array_equal(read_image(f"{path}[9]"), PART)


def test_only_a_tiff_has_pages(tmp_path):
    path = tmp_path / "really.tif"
    path.write_bytes(saved(WHOLE, "PNG"))
    with pytest.raises(ImageError, match="only a TIFF has pages"):
        read_image(f"{path}[0]")


def test_a_tiff_that_names_its_directory_again_has_an_end():
    data = bytearray(deep_tiff(DEEP))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    image, header = decode_with_header(bytes(data), "x")
    assert header.n_pages == 1 and (image == DEEP).all()


@pytest.mark.parametrize("values", [1, 900_000])
def test_a_tiff_of_very_many_directories_is_no_work(values):
    """A small file could keep a thread busy for minutes."""
    entry = struct.pack("<HHII", 273, 4, values, 8)  # all share their values
    page = struct.pack("<H", 60) + entry * 60
    length = len(page) + 4
    pages = [page + struct.pack("<I", 8 + n * length) for n in range(1, 30_000)]
    data = struct.pack("<2sHI", b"II", 42, 8) + b"".join(pages)[: 8 + 4_000_000]
    with pytest.raises(ImageError, match=r"damaged|cut off|not an image"):
        decode_image(data, "x")


def directory(entries, following, order="<"):
    """A classic directory of (tag, kind, number, value)."""
    packed = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return struct.pack(f"{order}H", len(entries)) + packed + struct.pack(f"{order}I", following)


@pytest.mark.parametrize(
    "data",
    [
        b"II*\0" + bytes(40),  # no directory
        b"II*\0" + struct.pack("<I", 2**32 - 2) + bytes(40),
        b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63 + 5) + bytes(40),
        b"MM\0+\0\x08\0\0" + struct.pack(">Q", 2**64 - 1) + bytes(40),
        b"II*\0\x08\0\0\0" + b"".join(directory([], 8 + 6 * n) for n in range(1, 200_000)),
    ],
    ids=["none", "beyond", "overflow", "big-endian overflow", "empty ones"],
)
def test_directories_that_lead_nowhere_are_errors(data):
    for name in ("x", "x.tif"):
        with pytest.raises(ImageError):
            decode_image(data, name)


def test_strips_that_share_their_data_are_refused():
    """A small file would inflate for hours."""
    bomb = zlib.compress(bytes(2**25), 9)
    count = 300
    lists = 8 + 2 + 12 * 9 + 4
    entries = [
        *((256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 16), (259, 3, 1, 8), (262, 3, 1, 1)),
        (273, 4, count, lists),
        *((277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, lists + 4 * count)),
    ]
    at = lists + 8 * count
    values = struct.pack(f"<{2 * count}I", *([at] * count), *([len(bomb)] * count))
    data = b"II*\0\x08\0\0\0" + directory(entries, 0) + values + bomb
    with pytest.raises(ImageError, match="its strips overlap"):
        decode_image(data, "x")


def test_the_memory_of_deep_pixels_is_bounded():
    """What counts is bytes: doubles of three channels take 12 times as many as 8 bits."""
    image = np.zeros((400, 400, 3))
    data = deep_tiff(image, compression="zlib", **RGB)
    with pytest.raises(ImageTooLargeError, match="400x400 pixels of 36 bytes; at most 600,000 byt"):
        decode_image(data, "x", 200_000)
    assert decode_image(data, "x", 2_000_000).shape == (400, 400, 3)
    assert decode_image(encoded(".png", PART), "x", 203 * 181).dtype == np.uint8


def test_bits_in_another_order_are_put_right():
    """Fill order 2, of old scanners: OpenCV knows it."""
    height, width = DEEP.shape
    entries = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((266, 3, 1, 2), (273, 4, 1, 134), (277, 3, 1, 1), (278, 4, 1, height)),
        (279, 4, 1, DEEP.nbytes),
    ]
    data = b"II*\0\x08\0\0\0" + directory(entries, 0) + DEEP.tobytes()
    assert data.index(DEEP.tobytes()) == 134
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert (expected != DEEP).any()
    np.testing.assert_array_equal(decode_image(data, "x"), expected)


# ------------------------------------------------------------------------------ reduced scale


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_a_jpeg_is_reduced_while_it_is_decoded(mode, options, divisor):
    large = cv2.resize(draw_part(7, size=256), (523, 411), interpolation=cv2.INTER_CUBIC)
    data = saved(PilImage.fromarray(large).convert(mode), "JPEG", quality=95, **options)
    size = 411 // divisor, 523 // divisor
    image, header = decode_with_header(data, "x", enough=lambda _: size)
    assert image.shape == (-(-411 // divisor), -(-523 // divisor), 3)
    assert header.size == (411, 523)
    full = decode_image(data, "x")
    averaged = cv2.resize(full, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image.astype(int) - averaged).mean() < 3
    assert decode_with_header(data, "x", enough=lambda _: (206, 1))[0].shape == full.shape


def test_a_reduced_jpeg_is_turned_and_its_damage_seen():
    exif = PilImage.Exif()
    exif[0x0112] = 6
    large = PilImage.fromarray(np.kron(PART, np.ones((4, 2, 1), np.uint8)))
    data = saved(large, "JPEG", exif=exif)
    image, header = decode_with_header(data, "x", enough=lambda size: (size[0] // 2, size[1] // 2))
    assert header.size == (362, 812) and image.shape == (181, 406, 3)
    upright = np.asarray(
        ImageOps.exif_transpose(PilImage.open(io.BytesIO(data))).resize((406, 181))
    )
    assert np.abs(image.astype(int) - upright).mean() < 4
    for broken in (data[:-900], data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :]):
        with pytest.raises(ImageError, match="damaged or cut off"):
            decode_with_header(broken, "x", enough=lambda _: (40, 40))


def test_alpha_does_not_change_the_colours_of_a_tiff():
    assert (by_opencv(saved(RGBA, "TIFF")) != PART).any()  # what OpenCV makes of it
    with pytest.raises(ImageError, match="a TIFF with transparent pixels"):
        decode_image(saved(RGBA, "TIFF"), "a")
    opaque = np.dstack([PART, np.full(PART.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(decode_image(saved(opaque, "TIFF"), "a"), PART)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_noted_orientation_is_applied(kind, orientation):
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    data = saved(WHOLE, kind, exif=exif)
    upright = ImageOps.exif_transpose(PilImage.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_allclose(decode_image(data, "a"), np.asarray(upright), atol=4)


@pytest.mark.parametrize("size", [40, 52, 56, 108, 124])
def test_bmp_masks_of_any_order_are_right(size):
    """OpenCV honours them in some headers and not in others."""
    image = PART[:20, :24]
    for order in itertools.permutations(range(4), 3):
        placed = np.zeros((20, 24, 4), np.uint8)
        for channel, byte in enumerate(order):
            placed[..., byte] = image[..., channel]
        data = _bmp(placed, [0xFF << (8 * byte) for byte in order], size)
        np.testing.assert_array_equal(decode_image(data, "a"), image, str(order))
    with pytest.raises(ImageError, match=r"colour masks 000003FF, 000FFC00, 3FF00000"):
        decode_image(_bmp(placed, [0x3FF, 0xFFC00, 0x3FF00000], size), "a.bmp")


def _bmp(pixels, masks, size=40):
    height, width = pixels.shape[:2]
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, 32, 3, pixels.size, 0, 0, 0, 0)
    info += struct.pack("<III", *masks)
    info += bytes(max(size - len(info), 0))
    head = struct.pack("<2sIHHI", b"BM", 14 + len(info) + pixels.size, 0, 0, 14 + len(info))
    return head + info + pixels[::-1].tobytes()


# ------------------------------------------------------------------------------------- damage


def _tail(data, fill):
    """The last third replaced, the end marker kept, as an interrupted copy leaves it."""
    start = len(data) * 2 // 3
    return data[:start] + fill(len(data) - start - 2) + data[-2:]


def _foreign(count):
    return np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8).tobytes()


def _foreign_without_markers(count):
    return np.random.default_rng(count).integers(0, 255, count, dtype=np.uint8).tobytes()


JPEG_KINDS = {
    "plain": (),
    "optimised": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
}


@pytest.mark.parametrize(
    "fill", [bytes, _foreign, _foreign_without_markers], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("image", [NOISY, draw_part(1, size=300)], ids=["noisy", "smooth"])
def test_a_jpeg_whose_last_third_is_something_else_is_refused(image, kind, fill):
    data = encoded(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, 92, *JPEG_KINDS[kind])
    decode_image(data, "whole")
    with pytest.raises(ImageError, match=r"part\.jpg: the image is damaged or cut off"):
        decode_image(_tail(data, fill), "part.jpg")


@pytest.mark.parametrize("length", [40, 512, 4096])
@pytest.mark.parametrize("kind", ["plain", "optimised", "restarts"])
def test_a_jpeg_with_a_hole_of_zeros_is_refused(kind, length):
    data = encoded(".jpg", NOISY, cv2.IMWRITE_JPEG_QUALITY, 95, *JPEG_KINDS[kind])
    middle = len(data) // 2
    with pytest.raises(ImageError, match="damaged"):
        decode_image(data[:middle] + bytes(length) + data[middle + length :], "a")


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize(
    "junk", [b"\x00", b"\x01\x02\x03", bytes(5), bytes(3000), b"\xff" * 40, bytes(range(1, 30))]
)
def test_junk_of_a_webcam_before_the_end_is_no_damage(kind, junk):
    data = encoded(".jpg", NOISY, *JPEG_KINDS[kind])
    padded = data[:-2] + junk + data[-2:]
    np.testing.assert_array_equal(decode_image(padded, "a"), by_opencv(data))


def test_padding_of_each_part_is_no_damage():
    """Some webcams fill the data before each restart marker up to words."""
    data = encoded(".jpg", NOISY, cv2.IMWRITE_JPEG_RST_INTERVAL, 4)
    start = data.index(b"\xff\xda")
    padded = data[:start] + re.sub(
        rb"\xff[\xd0-\xd7]", lambda found: bytes(3) + found[0], data[start:]
    )
    np.testing.assert_array_equal(decode_image(padded, "a"), by_opencv(data))


def test_bytes_between_headers_are_no_damage():
    data = encoded(".jpg", NOISY)
    second = data.index(b"\xff\xdb")
    np.testing.assert_array_equal(
        decode_image(data[:second] + b"\x00" + data[second:], "a"), by_opencv(data)
    )


@pytest.mark.parametrize(
    "behind", [bytes(4), bytes(200_000), b"\xff" * 200_000, _foreign(200_000)], ids=len
)
def test_what_follows_the_end_of_a_jpeg_does_not_count(behind):
    data = encoded(".jpg", PART)
    np.testing.assert_array_equal(decode_image(data + behind, "a"), by_opencv(data))


def test_a_flat_jpeg_has_runs_of_zeros_and_is_whole():
    flat = np.full((400, 400, 3), 128, np.uint8)
    for options in JPEG_KINDS.values():
        np.testing.assert_allclose(decode_image(encoded(".jpg", flat, *options), "a"), flat, atol=1)


@pytest.mark.parametrize("suffix", [s for entry in FORMATS for s in entry.suffixes[:1]])
@pytest.mark.parametrize("damage", ["cut", "cut a little", "zeros to the end"])
def test_damage_of_every_format(suffix, damage):
    data = saved(PilImage.fromarray(NOISY).convert("L"), "PPM")
    data = data if suffix == ".pgm" else encoded(suffix, NOISY)
    decode_image(data, "whole")
    third = len(data) * 2 // 3
    broken = {
        "cut": data[:third],
        "cut a little": data[:-200],
        "zeros to the end": data[: third + 7] + bytes(len(data) - third - 7),
    }[damage]
    with pytest.raises(ImageError, match=rf"part{suffix}: the (image is damaged|file is not)"):
        decode_image(broken, f"part{suffix}")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_holes_in_the_strips_of_a_tiff(compression):
    data = saved(NOISY, "TIFF", compression=compression)
    decode_image(data, "whole")
    middle = len(data) // 2
    # Where the pages are listed at the end, the file keeps its end.
    hole = len(data) - middle - 4000 if compression == "raw" else 500
    broken = data[:middle] + bytes(hole) + data[middle + hole :]
    if compression == "raw":
        broken = data[:middle] + bytes(len(data) - middle)
    with pytest.raises(ImageError, match="damaged"):
        decode_image(broken, "a")


@pytest.mark.parametrize("chunk", [b"IDAT", b"IHDR", b"IEND"])
def test_a_png_with_a_wrong_checksum_is_refused(chunk):
    data = bytearray(encoded(".png", PART))
    place = bytes(data).index(chunk) + 4
    length = struct.unpack(">I", data[place - 8 : place - 4])[0]
    data[place + length] ^= 1  # of the checksum
    with pytest.raises(ImageError, match=f"checksum of chunk '{chunk.decode()}' is wrong"):
        decode_image(bytes(data), "a")


def test_a_black_border_is_no_damage():
    image = NOISY.copy()
    image[:40] = 0
    image[-40:] = 0
    disc = np.zeros_like(NOISY)
    cv2.circle(disc, (150, 150), 90, (255, 255, 255), -1)
    for picture in (image, np.where(disc > 0, NOISY, 0).astype(np.uint8), disc, 255 - disc):
        for suffix in (".bmp", ".ppm", ".tif"):
            np.testing.assert_array_equal(decode_image(encoded(suffix, picture), "a"), picture)


# ------------------------------------------------------------------------------ named refusals


def _tiff(image, **options):
    return saved(PilImage.fromarray(image), "TIFF", **options)


def with_tag(data, number, value):
    """A TIFF with another value of a tag."""
    out = io.BytesIO(data)
    with tifffile.TiffFile(out, mode="r+b") as file:
        file.pages[0].tags[number].overwrite(value)
    return out.getvalue()


def with_compression(number):
    """A TIFF that says that what it holds was compressed so."""
    return with_tag(deep_tiff(DEEP), 259, number)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (deep_tiff(FLOATS.astype(np.float16)), "TIFF of float 16 bits"),
        (deep_tiff(FLOATS.astype(np.complex64)), "TIFF of complex 64 bits"),
        (deep_tiff(DEEP.astype(np.uint64)), "TIFF of 64 bits"),
        (deep_tiff(np.moveaxis(COLOUR, 2, 0), planarconfig="separate", **RGB), "TIFF without comp"),
        (
            deep_tiff(
                np.moveaxis(COLOUR, 2, 0), planarconfig="separate", compression="zlib", **RGB
            ),
            "TIFF of 16 bits with each channel apart",
        ),
        (
            deep_tiff(np.dstack([DEEP, DEEP]), extrasamples=["unassalpha"], planarconfig="contig"),
            "TIFF of 16 bits with a further channel",
        ),
        (
            deep_tiff(np.dstack([COLOUR, DEEP]), extrasamples=["unassalpha"], **RGB),
            "TIFF with transparent pixels",
        ),
        (with_tag(deep_tiff(np.dstack([DEEP] * 3), **RGB), 262, 1), "gray TIFF of 3 channels"),
        (with_tag(deep_tiff(np.dstack([DEEP] * 3), **RGB), 262, 0), "gray TIFF of 3 channels"),
        (
            deep_tiff(np.dstack([COLOUR, DEEP]), photometric="separated", planarconfig="contig"),
            "CMYK TIFF of 16 bits",
        ),
        (deep_tiff(FLOATS, photometric="miniswhite"), "TIFF of float 32 bits whose white is 0"),
        (
            deep_tiff(np.dstack([COLOUR, DEEP, DEEP]), planarconfig="contig"),
            "TIFF of 16 bits with 4 further channels",
        ),
        (with_compression(50000), "TIFF with Zstandard inside"),
        (with_compression(34712), "TIFF with JPEG 2000 inside"),
        (with_compression(7), "TIFF of 16 bits with JPEG inside"),
        (with_compression(4711), "TIFF with compression 4711 inside"),
        (saved(WHOLE.convert("LAB"), "TIFF"), "TIFF of the photometric interpretation 8"),
        (b"P5\n181 203\n100\n" + bytes(181 * 203), "PGM file with values up to 100"),
        (saved(WHOLE, "WEBP", save_all=True, append_images=[WHOLE.rotate(9)]), "animated WebP"),
        (saved(WHOLE, "PNG", save_all=True, append_images=[WHOLE.rotate(9)]), "animated PNG"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_refused_by_name(data, message):
    with pytest.raises(ImageError, match=rf"x: is an? {message}.*not read\. Save "):
        decode_image(data, "x")


def test_a_png_of_four_bits_and_interlaced():
    rows = b"".join(b"\0" + bytes([(x * 16 + y) % 256 for x in range(10)]) for y in range(20))

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 4, 0, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_image(data, "a"), by_opencv(data))


# -------------------------------------------------------------- sound files that look odd


def test_pictures_with_black_or_white_areas_are_whole():
    scene = cv2.resize(NOISY, (640, 360))
    for value in (0, 255):
        for rows in (slice(180, None), slice(0, 180), slice(20, None)):
            image = scene.copy()
            image[rows] = value
            for data in (
                saved(image, "WEBP"),
                saved(image, "WEBP", lossless=True),
                saved(image, "TIFF", compression="tiff_adobe_deflate"),
                saved(image, "TIFF", compression="tiff_lzw"),
                saved(image, "JPEG2000"),
                encoded(".bmp", image),
                encoded(".jpg", image, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
            ):
                np.testing.assert_array_equal(decode_image(data, "a"), by_opencv(data))


def test_a_pattern_in_jpeg_2000_is_whole():
    board = np.kron(np.indices((75, 100)).sum(0) % 2 * 255, np.ones((8, 8))).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(saved(board, "JPEG2000"), "a")[..., 0], board)


def test_plain_text_pgm_without_an_end():
    numbers = " ".join(map(str, range(256))).encode()
    image = decode_image(b"P2\n16 16\n255\n" + numbers, "a")
    assert image[..., 0].tolist() == np.arange(256).reshape(16, 16).tolist()


def test_a_png_with_thousands_of_texts():
    data = encoded(".png", PART)
    text = b"tEXt" + b"a\0b"
    chunk = struct.pack(">I", 3) + text + struct.pack(">I", zlib.crc32(text))
    head = data.index(b"IDAT") - 4
    np.testing.assert_array_equal(decode_image(data[:head] + chunk * 3000 + data[head:], "a"), PART)


def test_of_two_notes_of_the_camera_the_first_counts():
    def note(orientation):
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"
        exif += bytes([orientation, 0, 0, 0, 0, 0, 0, 0])
        return b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif

    data = encoded(".jpg", PART)
    data = data[:2] + note(6) + note(1) + data[2:]
    np.testing.assert_array_equal(decode_image(data, "a"), by_opencv(data))
    assert decode_image(data, "a").shape[0] == PART.shape[1]


@pytest.mark.parametrize("columns", [15, 60])
def test_a_bmp_that_stops_beside_a_black_border(columns):
    image = NOISY.copy()
    image[:, :columns] = 0
    data = encoded(".bmp", image)
    stop = len(data) * 2 // 3 // 900 * 900 + 54 + 600  # in the middle of a row
    with pytest.raises(ImageError, match="ends in its middle"):
        decode_image(data[:stop] + bytes(len(data) - stop), "a")


def test_a_palette_bmp_that_stops():
    data = saved(PilImage.fromarray(NOISY).quantize(200), "BMP")
    stop = len(data) * 2 // 3 // 300 * 300 + 1078 + 150
    with pytest.raises(ImageError, match="ends in its middle"):
        decode_image(data[:stop] + bytes(len(data) - stop), "a")


# ------------------------------------------------------- headers that say another size


def _lone_marker(big):
    """libjpeg passes over a lone restart marker; its "length" would lead past the true size."""
    small = encoded(".jpg", PART[:16, :16])
    frame = small[small.index(b"\xff\xc0") :][:19]
    hidden = b"\xff\xe0" + (len(frame) + 2).to_bytes(2, "big") + frame
    return b"\xff\xd8\xff\xd0" + hidden + encoded(".jpg", big)[2:]


def _box_before(big):
    data = saved(big, "JPEG2000")
    box = b"xml " + saved(PART[:64, :64], "JPEG2000", no_jp2=True)[:200]
    at = 12 + int.from_bytes(data[12:16], "big")
    return data[:at] + (len(box) + 4).to_bytes(4, "big") + box + data[at:]


@pytest.mark.parametrize("make", [_lone_marker, _box_before])
def test_the_size_that_is_checked_is_the_one_that_is_decoded(make):
    big = np.zeros((600, 700, 3), np.uint8)
    with pytest.raises(ImageError, match=r"700x600 pixels; at most 100,000|damaged"):
        decode_image(make(big), "a", max_pixels=100_000)


def test_a_tiff_whose_first_page_is_no_photograph_is_refused():
    data = bytearray(saved(PART, "TIFF", save_all=True, append_images=[WHOLE.resize((40, 40))]))
    first = struct.unpack_from("<I", data, 4)[0]
    # The tag of the width becomes that of the kind of page: reduced.
    count = struct.unpack_from("<H", data, first)[0]
    entries = [first + 2 + 12 * n for n in range(count)]
    place = next(at for at in entries if struct.unpack_from("<H", data, at)[0] == 284)
    struct.pack_into("<HHII", data, place, 254, 4, 1, 1)
    with pytest.raises(ImageError, match="begins with a reduced image or a mask"):
        decode_image(bytes(data), "a")


def test_a_tiff_that_inflates_without_end_is_refused_in_little_memory():
    import tracemalloc

    bomb = zlib.compress(bytes(300_000_000), 9)
    data = saved(PART, "TIFF", compression="tiff_adobe_deflate")
    start = struct.unpack_from("<I", data, 4)[0]
    data = bytearray(data + bomb)
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        tag = struct.unpack_from("<H", data, at)[0]
        if tag in (273, 279):
            value = len(data) - len(bomb) if tag == 273 else len(bomb)
            struct.pack_into("<HHII", data, at, tag, 4, 1, value)
    tracemalloc.start()
    with pytest.raises(ImageError):
        decode_image(bytes(data), "a")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
