import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.metrics import aupro, pixel_auroc


def made(seed, *, levels=None):
    """Three maps with masks of several regions; few levels give ties."""
    random = np.random.default_rng(seed)
    maps, masks = [], []
    for n in range(3):
        mask = np.zeros((20 + n, 24), bool)
        for _ in range(n):
            y, x = random.integers(0, 16, 2)
            mask[y : y + random.integers(1, 5), x : x + random.integers(1, 6)] = True
        values = random.normal(size=mask.shape) + mask
        if levels:
            values = np.round(values * levels) / levels
        maps.append(values.astype(np.float32))
        masks.append(mask)
    return maps, masks


def naive_aupro(maps, masks, limit):
    """Every threshold in turn, and trapezoids between them."""
    regions = []
    for n, mask in enumerate(masks):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [(n, labels == label) for label in range(1, count)]
    good = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([m.ravel() for m in maps]))[::-1]:
        overlap = np.mean([(maps[n][place] >= threshold).mean() for n, place in regions])
        points.append(((good >= threshold).mean(), overlap))
    area = 0.0
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        if x1 >= limit:
            break
        if x2 > limit:
            y2 = y1 + (y2 - y1) * (limit - x1) / (x2 - x1)
            x2 = limit
        area += (x2 - x1) * (y1 + y2) / 2
    return area / limit


@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=25, deadline=None)
def test_aupro_equals_a_naive_one(seed, limit):
    maps, masks = made(seed)
    assert aupro(maps, masks, limit) == pytest.approx(naive_aupro(maps, masks, limit), abs=2e-3)


def test_at_the_whole_range_ties_count_half_in_both():
    maps, masks = made(3, levels=2)
    assert aupro(maps, masks, 1.0) == pytest.approx(naive_aupro(maps, masks, 1.0), abs=1e-9)


@pytest.mark.parametrize("levels", [None, 2])
def test_pixel_auroc_equals_scikit_learn(levels):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    maps, masks = made(0, levels=levels)
    flat = [np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, maps)]
    assert pixel_auroc(maps, masks) == pytest.approx(metrics.roc_auc_score(*flat), abs=1e-9)


def test_a_perfect_map_and_a_useless_one():
    mask = np.zeros((10, 10), bool)
    mask[3:6, 3:6] = True
    assert aupro([mask.astype(float)], [mask]) == pixel_auroc([mask.astype(float)], [mask]) == 1
    assert pixel_auroc([np.zeros((10, 10))], [mask]) == 0.5


@pytest.mark.parametrize(
    ("anomaly_map", "mask"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5), bool)),
        (np.full((4, 4), np.nan), np.eye(4, dtype=bool)),
        (np.zeros((4, 4)), np.zeros((4, 4), bool)),
        (np.zeros((4, 4)), np.ones((4, 4), bool)),
        (np.zeros((4, 4)), np.eye(4, dtype=np.uint8)),
    ],
)
def test_what_cannot_be_measured(anomaly_map, mask):
    for metric in (aupro, pixel_auroc):
        with pytest.raises(DataError):
            metric([anomaly_map], [mask])


def test_numbers_of_maps_and_masks_and_the_limit():
    maps, masks = made(0)
    for metric in (aupro, pixel_auroc):
        with pytest.raises(DataError, match="their numbers differ"):
            metric(maps[:2], masks)
    for limit in (0, 1.5, float("nan")):
        with pytest.raises(OptionError, match="false positive rate"):
            aupro(maps, masks, limit)
