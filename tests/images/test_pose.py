"""Pose and light: what training images teach, and what a model then takes of a photograph."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import OptionError, PoseError
from anomaly_ad.images import Framing, find_part
from anomaly_ad.images.light import MOST_GAIN, Light, learn_field, learn_gain
from anomaly_ad.images.part import shrunk
from anomaly_ad.images.pose import Axes, learn_pose, pose_from_dict, pose_to_dict
from anomaly_ad.images.taken import inverted


def link(angle=0.0, shift=(0, 0), size=200, mark=True):
    """An elongated part with two different ends, turned clockwise by degrees."""
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    turn = np.radians(angle)
    dx, dy = x - size / 2 - shift[0], y - size / 2 - shift[1]
    u = (np.cos(turn) * dx + np.sin(turn) * dy) * 200 / size
    v = (np.cos(turn) * dy - np.sin(turn) * dx) * 200 / size
    inside = (np.abs(v) < 10) & (np.abs(u) < 50)
    inside |= np.hypot(u + 50, v) < 25
    inside |= np.hypot(u - 50, v) < 15
    image = np.full((size, size, 3), 40, np.uint8)
    image[inside] = (190, 180, 170)
    if mark:
        image[np.hypot(u - 50, v - 4) < 4] = (90, 80, 70)
    return cv2.GaussianBlur(image, (0, 0), 0.8)


LINKS = [link(n * 37, (n % 5 - 2, n % 3 - 1)) for n in range(24)]


@pytest.fixture(scope="module")
def pose():
    found, why = learn_pose("auto", map(shrunk, LINKS))
    assert "elongated" in why and "different directions" in why
    return found


@given(st.floats(0, 359), st.integers(-12, 12), st.integers(-12, 12))
@settings(max_examples=40, deadline=None)
def test_any_rotation_gives_one_picture(pose, angle, x, y):
    way = Framing.new(64, 128, 3, pose=pose)
    taken = way.take(link(angle, (x, y)))
    reference = way.take(link())
    both = taken.counted if reference.counted is None else reference.counted
    both = np.ones((64, 128), bool) if both is None else both
    difference = np.abs(taken.views[0].astype(int) - reference.views[0])[both]
    assert difference[:, :3].mean() < 6
    # The mark lies at the same place, and comes back from it.
    turn = np.radians(angle)
    cos, sin = np.cos(turn), np.sin(turn)
    mark = np.array([cos * 50 - sin * 4 + 100 + x, sin * 50 + cos * 4 + 100 + y])
    seen = inverted(taken.to_photo) @ [*mark, 1]
    expected = inverted(reference.to_photo) @ [150, 104, 1]
    assert np.abs(seen - expected).max() < 1.5
    assert np.abs(taken.points_to_original(expected[None]) - mark).max() < 3


def test_beyond_the_photograph_nothing_counts_and_all_looks_natural(pose):
    taken = Framing.new(64, 128, 3, pose=pose).take(link(45, (32, 32)))
    beyond = taken.views[0][~taken.counted]
    assert len(beyond) and (beyond[:, 3] == 0).all()
    assert np.abs(beyond[:, :3].astype(int) - 40).max() < 12  # the table, mirrored


def test_boxes_and_maps_come_back_turned(pose):
    way = Framing.new(64, 128, 3, pose=pose)
    taken = way.take(link(90))
    peak = np.zeros((64, 128), np.float32)
    peak[28:36, 100:110] = 1
    at = np.argwhere(taken.map_to_original(peak) > 0.5)
    (box,) = taken.boxes_to_original(np.array([[100, 28, 110, 36]]))
    x1, y1, x2, y2 = box.tolist()
    assert x1 - 1 <= at[:, 1].min() and at[:, 1].max() <= x2
    assert y1 - 1 <= at[:, 0].min() and at[:, 0].max() <= y2
    area = len(at) / (80 * taken.pixel_area)
    assert 0.8 < area < 1.25


def test_a_photograph_of_another_resolution(pose):
    way = Framing.new(64, 128, 3, pose=pose)
    small, large = way.take(link(30)), way.take(link(30, size=600))
    assert np.abs(small.views.astype(int) - large.views)[..., :3].mean() < 6


def test_parts_that_are_no_good_ones(pose):
    way = Framing.new(64, 128, 3, pose=pose)
    broken = link(20)
    broken[:100] = 40
    with pytest.raises(PoseError, match=r"the (length|width) of the part is \d+ pixels, that of"):
        way.take(broken)
    with pytest.raises(PoseError, match="no part stands out"):
        way.take(np.full((200, 200, 3), 40, np.uint8))
    with pytest.raises(PoseError):
        way.take(link(10, (80, 0)))  # cut by the border


@pytest.mark.parametrize(
    ("images", "why"),
    [
        ([link(n % 3, (n % 5, 0)) for n in range(24)], "lie alike"),
        ([np.full((200, 200, 3), 40, np.uint8)] * 12, "stands out from the background in 0%"),
        ([link(n * 37, (60, 0)) for n in range(24)], "(touches the border|stands out)"),
    ],
)
def test_auto_leaves_what_need_not_be_turned(images, why):
    pose, said = learn_pose("auto", map(shrunk, images))
    assert pose is None
    assert re.search(why, said)


def test_round_parts_are_left_and_can_be_registered():
    def washer(angle):
        image = np.full((160, 160, 3), 40, np.uint8)
        cv2.circle(image, (80, 80), 60, (180, 170, 160), -1, cv2.LINE_AA)
        for k, radius in ((0, 12), (100, 8), (200, 16)):
            turn = np.radians(angle + k)
            at = (round(80 + 38 * np.cos(turn)), round(80 + 38 * np.sin(turn)))
            cv2.circle(image, at, radius, (60, 60, 60), -1, cv2.LINE_AA)
        return image

    images = [washer(n * 53) for n in range(16)]
    assert learn_pose("auto", map(shrunk, images))[0] is None
    pose, said = learn_pose("rigid", map(shrunk, images))
    assert pose.way == "registration" and "registered" in said
    way = Framing.new(96, 96, 1, pose=pose)
    views = np.stack([way.views(washer(n * 31))[0][..., 0].astype(float) for n in range(8)])
    assert np.abs(views - np.median(views, axis=0))[:, 20:76, 20:76].mean() < 12
    with pytest.raises(PoseError, match=r"correlation|moved"):
        way.take(np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8))


def test_translation_moves_and_does_not_turn():
    images = [link(5, (n % 7 - 3, n % 4 - 2)) for n in range(16)]
    pose, _ = learn_pose("translation", map(shrunk, images))
    way = Framing.new(96, 96, 3, pose=pose)
    first, second = way.take(link(5, (-8, 6))), way.take(link(5, (7, -5)))
    assert np.abs(first.views.astype(int) - second.views)[..., :3].mean() < 4
    assert first.to_photo[0, 1] == first.to_photo[1, 0] == 0


def test_poses_as_plain_values(pose):
    assert pose_from_dict(pose_to_dict(pose)) == pose
    for damaged in ({}, {"way": "axes"}, {"way": "x"}, {**pose_to_dict(pose), "more": 1}):
        with pytest.raises(OptionError, match="damaged"):
            pose_from_dict(damaged)


@given(st.floats(0, 180), st.floats(1.6, 4))
@settings(max_examples=40, deadline=None)
def test_axes_are_those_of_an_ellipse(angle, ratio):
    mask = np.zeros((200, 200), np.uint8)
    cv2.ellipse(mask, (100, 100), (80, round(80 / ratio)), angle, 0, 360, 1, -1)
    axes = Axes.of(mask > 0, turns=True)
    assert np.cos(2 * (axes.angle - np.radians(angle))) > 0.99
    assert axes.elongation == pytest.approx(80 / round(80 / ratio), rel=0.05)


def test_the_part_is_found():
    found = find_part(link(40))
    assert found is not None and found[100, 100] and not found[5, 5]


# ------------------------------------------------------------------------------- light


def test_gain_brings_an_image_to_the_light_of_the_others():
    random = np.random.default_rng(0)
    good = [random.normal(120, 20, (40, 40, 3)).clip(0, 255).astype(np.uint8) for _ in range(8)]
    light = learn_gain([(image, None) for image in good])
    eye = np.eye(2, 3)
    dark = (good[0] * 0.8).astype(np.uint8)
    out = light.applied(dark, light.measured(dark, None), (40, 40), eye)
    assert abs(np.median(out) - 120) < 3 and abs(out.std() - good[0].std()) < 2
    # Within bounds: what is black stays dark, and noise is not blown up.
    noise = random.integers(0, 3, (40, 40, 3), dtype=np.uint8)
    black = light.applied(noise, light.measured(noise, None), (40, 40), eye)
    assert black.max() < 70 and np.ptp(black) <= 2 * MOST_GAIN + 1


def test_light_is_measured_where_it_counts():
    light = Light(100.0, 20.0)
    image = np.full((20, 20), 50, np.uint8)
    image[:, 10:] = 250
    counted = np.zeros((20, 20), bool)
    counted[:, :10] = True
    out = light.applied(image, light.measured(image, counted), (20, 20), np.eye(2, 3))
    assert (out[:, :10] == 100).all()


def test_a_flat_field_takes_the_slope_of_the_light():
    slope = np.linspace(60, 200, 120)[None, :, None].repeat(80, axis=0).repeat(3, axis=2)
    random = np.random.default_rng(0)
    images = [(slope + random.normal(0, 4, slope.shape)).astype(np.uint8) for _ in range(6)]
    light = learn_field([shrunk(image) for image in images])
    way = Framing(40, 60, 3, light=light)
    view = way.views(images[0])[0].astype(float)
    across = view.mean(axis=(0, 2))
    assert np.ptp(across[6:-6]) < 0.15 * np.ptp(slope[0, :, 0])


@pytest.mark.parametrize("values", [{}, {"level": 3.0}, {"field": "x"}])
def test_light_that_cannot_be(values):
    with pytest.raises(OptionError, match=r"[Ll]ight"):
        Light(**values)
