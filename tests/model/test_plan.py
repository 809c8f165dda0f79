"""The size of a model's input, where the user names none."""

import math

import cv2
import numpy as np
import pytest
from conftest import draw_part, write_image
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ad.images import survey
from anomaly_ad.methods.registry import PRESETS
from anomaly_ad.model.plan import Plan, input_size

SHAPED = [name for name, preset in PRESETS.items() if preset.largest_area is not None]


@pytest.mark.parametrize(
    ("method", "sizes", "expected"),
    [
        ("padim", [(512, 512)], (256, 256)),
        ("padim", [(64, 64)], (256, 256)),
        ("padim", [(500, 1240)], (160, 416)),
        ("padim", [(1240, 500)], (416, 160)),
        ("padim", [(1000, 50)], (512, 128)),
        ("padim", [(300, 300), (300, 310), (310, 300), (100, 900)], (256, 256)),
        ("padim", [], (256, 256)),
        ("patchcore", [(256, 256)], (256, 256)),
        ("patchcore", [(300, 300)], (288, 288)),
        ("patchcore", [(4000, 4000)], (384, 384)),
        ("patchcore", [(500, 1240)], (256, 608)),
        ("AD0", [(500, 1240)], (200, 200)),
    ],
)
def test_the_input_takes_the_shape_of_the_images(method, sizes, expected):
    assert input_size(PRESETS[method], sizes) == expected
    assert Plan.from_options(method, {}, sizes).framing.size == expected


@given(
    st.sampled_from(SHAPED),
    st.lists(st.tuples(st.integers(16, 20_000), st.integers(16, 20_000)), min_size=1, max_size=9),
)
def test_whatever_the_images_the_input_is_of_a_usable_size(method, sizes):
    preset = PRESETS[method]
    height, width = input_size(preset, sizes)
    assert height % 16 == width % 16 == 0 and min(height, width) >= 128
    assert 0.8 * math.prod(preset.img_size) <= height * width <= 1.2 * preset.largest_area
    assert Plan.from_options(method, {}, sizes).patch_size == 32


def test_a_size_that_is_given_is_kept():
    plan = Plan.from_options("patchcore", {"img_size": (64, 96)}, [(500, 1240)])
    assert plan.framing.size == (64, 96)


def test_sizes_are_those_of_the_decoded_images(tmp_path):
    for n in range(5):
        write_image(tmp_path / f"{n}.png", np.zeros((40 + n, 80, 3), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no image")
    turned = cv2.imencode(".jpg", draw_part(0)[:40])[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    marker = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "turned.jpg").write_bytes(turned[:2] + marker + turned[2:])
    files = sorted(tmp_path.iterdir())
    assert list(survey(files).sizes) == [*((40 + n, 80) for n in range(5)), (64, 40)]
    assert survey([tmp_path / "broken.png"]).sizes == ()
