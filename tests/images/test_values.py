"""Values and gray levels: one mapping for a model, learnt from the set, and what lies outside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anomaly_ad.errors import ImageError, OptionError
from anomaly_ad.images import Framing, check_value_range
from anomaly_ad.images.values import (
    EIGHT_BITS,
    check_values,
    gray_levels,
    learn_value_range,
)

KINDS = st.sampled_from([np.uint8, np.uint16, np.float32])
shapes = st.sampled_from([(20, 30), (16, 16, 3)])


def scene(low, high, seed=0, size=(200, 300)):
    rng = np.random.default_rng(seed)
    return np.rint(rng.uniform(low, high, size)).astype(np.uint16)


@given(data=st.data())
@settings(deadline=None)
def test_gray_levels_are_the_formula(data):
    kind = data.draw(KINDS)
    values = data.draw(arrays(kind, data.draw(shapes), elements=_elements(kind)))
    low = data.draw(st.integers(-500, 60_000))
    high = low + data.draw(st.integers(1, 70_000))
    before = values.copy()
    levels = gray_levels(values, (low, high))
    expected = np.clip(255 * (values.astype(np.float64) - low) / (high - low), 0, 255)
    assert levels.dtype == np.uint8 and levels.shape == values.shape
    assert np.abs(levels - expected).max() <= 0.5 + 1e-2
    np.testing.assert_array_equal(values, before)


def _elements(kind):
    if kind is np.float32:
        return st.floats(-1000, 80_000, width=32)
    return st.integers(0, int(np.iinfo(kind).max))


def test_of_8_bits_nothing_is_changed_or_copied():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert gray_levels(image, EIGHT_BITS) is image and gray_levels(image, None) is image


@pytest.mark.parametrize(
    "value",
    [
        (0,),
        (0, 1, 2),
        "01",
        (1, 1),
        (5, 2),
        (0, np.inf),
        (np.nan, 1),
        (True, 9),
        (0, 10**400),
        (-1e38, 1e38),
        7,
        {0: 1},
    ],
)
def test_what_is_no_value_range(value):
    with pytest.raises(OptionError, match=r"value_range is \(low, high\).*Received: "):
        check_value_range(value)
    with pytest.raises(OptionError, match="value_range"):
        Framing.new(32, 32, 1, "stretch", value_range=value)


def test_a_value_range_is_plain_numbers():
    assert check_value_range([np.uint16(3), 4095.0]) == (3, 4095)
    assert [type(one) for one in check_value_range((np.float32(0.5), 2))] == [float, int]


# -------------------------------------------------------------------------------------- learnt


def test_the_range_is_that_of_the_set_with_a_margin():
    low, high = learn_value_range([scene(300, 3300, seed) for seed in range(20)])
    assert 0 <= low <= 300 - 0.08 * 3000 and 3300 + 0.08 * 3000 <= high <= 4095
    assert isinstance(low, int) and isinstance(high, int)


def test_one_image_that_is_over_exposed_widens_nothing():
    images = [scene(300, 3300, seed) for seed in range(40)]
    usual = learn_value_range(images)
    with_one = learn_value_range([*images, np.full((200, 300), 65535, np.uint16)])
    np.testing.assert_allclose(with_one, usual, atol=3)


def test_a_range_stays_within_its_kind():
    assert learn_value_range([np.tile(np.array([0, 65535], np.uint16), (20, 10))]) == (0, 65535)
    floats = np.linspace(-1, 1, 400, dtype=np.float32).reshape(20, 20)
    low, high = learn_value_range([floats])
    assert -1.3 < low < -1.15 and 1.15 < high < 1.3


def test_without_an_image_there_is_no_range():
    assert learn_value_range([]) is None


def test_large_floats_keep_their_digits():
    values = np.array([[1e6, 1e6 + 5, 1e6 + 10]], np.float32)
    assert gray_levels(values, (1e6, 1e6 + 10)).tolist() == [[0, 128, 255]]


def test_images_that_are_even_have_a_range_too():
    low, high = learn_value_range([np.full((20, 20), 1000, np.uint16)] * 3)
    assert low < 1000 < high
    low, high = learn_value_range([np.zeros((20, 20), np.float32)] * 3)
    assert low < 0 < high


# ------------------------------------------------------------------------------------- outside

RANGE = (200, 3900)


@pytest.mark.parametrize(
    ("values", "end"),
    [
        (scene(3, 250), "black"),  # of 8 bits
        (np.full((20, 20), 210, np.uint16), "black"),
        (scene(5000, 60_000), "white"),  # of 16 bits
        (scene(300, 3900).astype(np.float32) / 65535, "black"),
    ],
)
def test_an_image_far_outside_is_an_error(values, end):
    with pytest.raises(ImageError) as error:
        check_values(values, RANGE, "part.tif", deep=True)
    assert str(error.value).startswith(f"part.tif: its values lie between {values.min():g} and ")
    assert f"the value range 200 to 3900 of the model it is {end}. Was it taken" in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        scene(200, 3900),
        scene(600, 5000),  # brighter than usual
        scene(250, 900),  # darker
        np.where(np.arange(60_000).reshape(200, 300) % 50 == 0, 3000, 210).astype(np.uint16),
    ],
)
def test_an_image_that_differs_is_none(values):
    check_values(values, RANGE, "part.tif", deep=True)


def test_a_model_takes_the_depth_that_it_was_trained_on():
    """Whatever the values: 8 bits in 16, or floats from 0 to 1, could mean anything."""
    for deep in (scene(0, 255), scene(300, 3300), np.ones((9, 9), np.float32)):
        with pytest.raises(ImageError, match=r"^x has more than 8 bits, and the model's training"):
            check_values(deep, EIGHT_BITS, "x", deep=False)
        with pytest.raises(ImageError, match=r"^x has more than 8 bits"):
            check_values(deep, (30, 180), "x", deep=False)
    plain = scene(20, 200).astype(np.uint8)
    for value_range in (RANGE, EIGHT_BITS, (0, 1023)):
        with pytest.raises(ImageError, match=r"^x has 8 bits, and the model's .* more than 8: its"):
            check_values(plain, value_range, "x", deep=True)
    check_values(np.zeros((20, 20), np.uint8), EIGHT_BITS, "part.png", deep=False)
    with pytest.raises(ImageError, match="it is black"):
        check_values(np.zeros((20, 20), np.uint8), (30, 180), "part.png", deep=False)


def test_a_model_of_a_former_version_takes_8_bits_and_16_whatever_they_are():
    for values in (scene(300, 60_000), scene(300, 3300), scene(0, 9).astype(np.uint8)):
        check_values(values, None, "part.png", deep=False)
    with pytest.raises(ImageError, match="of floating point, and the model was trained by"):
        check_values(scene(0, 9).astype(np.float32), None, "part.tif", deep=False)


# --------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(90, 120), (90, 120, 3)])
@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_views_of_deep_images_are_those_of_their_gray_levels(channels, shape, kind):
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 256, shape).astype(np.uint8)
    deep = (levels.astype(kind) * kind(16)).astype(kind)
    framing = Framing.new(30, 40, channels, "stretch", (0, 255 * 16), deep=True)
    plain = Framing.new(30, 40, channels)
    whole = levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
    views = framing.views(deep)
    assert views.dtype == np.uint8 and views.shape == (1, 30, 40, channels)
    assert np.abs(views.astype(int) - plain.views(whole)).max() <= 1
    np.testing.assert_array_equal(framing.picture(deep), whole)
