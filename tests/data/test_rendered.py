"""Defects rendered on photographs: where they lie, how large they are, what they leave alone."""

import cv2
import numpy as np
import pytest
from conftest import draw_part

from anomaly_ad.data.rendered import KINDS, defect_size, render_defect
from anomaly_ad.data.sample import render_part
from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.images.part import find_part


@pytest.fixture(scope="module")
def photograph():
    return render_part(5, size=(256, 256))[0]


def texture(seed=0, shape=(200, 240)):
    """A photograph that is all part, gray."""
    gray = np.random.default_rng(seed).normal(110, 6, shape).clip(0, 255).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [4, 15, 48])
def test_a_defect_has_its_size_and_lies_on_the_part(photograph, kind, size):
    before = photograph.copy()
    image, mask = render_defect(photograph, kind, size, 60, np.random.default_rng(size))
    assert image.dtype == np.uint8 and image.shape == photograph.shape
    assert mask.dtype == bool and mask.shape == photograph.shape[:2]
    assert (photograph == before).all()
    # A broken-off piece follows the part's outline.
    low = 0.6 * size - 1 if kind == "missing" else 0.9 * size - 1.5
    assert low <= defect_size(mask) <= 1.2 * size + 1.5
    part = find_part(photograph)
    assert part[mask].all()
    changed = (image != photograph).any(axis=2)
    assert changed[mask].mean() > 0.5
    # Soft edges, and the shading around a dent, reach a little farther; not more.
    reach = 2 * (3 + int(0.75 * size)) + 1
    near = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach)))
    assert not changed[near == 0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_defect_and_gray_stays_gray(kind):
    image = texture()
    first, second = (render_defect(image, kind, 20, 50, np.random.default_rng(3)) for _ in range(2))
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
    other, _ = render_defect(image, kind, 20, 50, np.random.default_rng(4))
    assert (other != first[0]).any()
    assert (first[0] == first[0][..., :1]).all()


@pytest.mark.parametrize("kind", ["scratch", "spot", "blotch", "dent", "missing"])
def test_the_contrast_is_in_gray_levels_and_the_noise_goes_on(kind):
    image = texture()
    changes = {}
    for contrast in (20, 60):
        out, mask = render_defect(image, kind, 40, contrast, np.random.default_rng(1))
        difference = out[..., 0].astype(int) - image[..., 0]
        changes[contrast] = np.abs(difference).max()
        assert 0.6 * contrast <= changes[contrast] <= 1.5 * contrast + 12
        fine = out[..., 0] - cv2.GaussianBlur(out[..., 0].astype(float), (0, 0), 1.5)
        assert fine[mask].std() > 2.5  # 5.4 without a defect
    assert changes[60] > 2 * changes[20]


def test_a_foreign_patch_differs_by_its_contrast_at_least():
    image = texture()
    out, mask = render_defect(image, "patch", 40, 50, np.random.default_rng(1))
    difference = np.abs(out[mask].astype(int) - image[mask])
    assert difference.mean() == pytest.approx(50, abs=5)


def test_a_missing_piece_has_the_colour_of_the_background():
    image = draw_part(0, size=200)
    out, mask = render_defect(image, "missing", 40, 60, np.random.default_rng(2))
    inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
    assert np.abs(out[inner].mean(axis=0) - 40).max() < 12
    assert image[inner].mean() > 100


def test_the_part_is_found_and_nothing_where_there_is_no_telling():
    image = draw_part(0, size=200)
    part = find_part(image)
    y, x = np.mgrid[:200, :200] - 100
    true = (np.hypot(x, y) < 66) & (np.hypot(x, y) > 25)
    assert (part & true).sum() / (part | true).sum() > 0.9
    assert find_part(texture()) is None
    assert find_part(np.full((90, 90, 3), 128, np.uint8)) is None
    small = np.full((200, 200, 3), 30, np.uint8)
    small[90:100, 90:100] = 200
    assert find_part(small) is None


def test_where_limits_the_place():
    image, where = texture(), np.zeros((200, 240), bool)
    where[20:80, 150:230] = True
    for seed in range(5):
        _, mask = render_defect(image, "spot", 20, 60, np.random.default_rng(seed), where=where)
        assert mask.any() and where[mask].all()
    with pytest.raises(DataError, match=r"100 pixels does not fit .* smaller one"):
        render_defect(image, "spot", 100, 60, np.random.default_rng(0), where=where)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "hole"}, "one of scratch, spot"),
        ({"size_px": 1}, "from 2 pixels"),
        ({"size_px": float("nan")}, "from 2 pixels"),
        ({"contrast": 0}, "above 0 to 255"),
        ({"contrast": "much"}, "number of gray levels"),
        ({"where": np.ones((5, 5), bool)}, "5x5 pixels and the image 200x240"),
    ],
)
def test_what_cannot_be_rendered_is_said(given, message):
    valid = {"kind": "spot", "size_px": 10, "contrast": 40, "rng": np.random.default_rng(0)}
    with pytest.raises(OptionError, match=message):
        render_defect(texture(), **{**valid, **given})


def test_the_size_is_the_longer_side_of_the_largest_region():
    mask = np.zeros((60, 60), bool)
    assert defect_size(mask) == 0
    mask[5, 5] = True
    assert defect_size(mask) == 1
    mask[20:24, 10:40] = True
    assert defect_size(mask) == 30
    diagonal = np.eye(60, dtype=bool)
    assert defect_size(diagonal) == pytest.approx(1 + 59 * np.sqrt(2), abs=0.01)
