"""Pixel metrics: against scikit-learn and a naive AUPRO, exactly and in steps."""

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.errors import DataError
from anomaly_ad.evaluation import metrics
from anomaly_ad.evaluation.metrics import PixelCurves


def made(seed, *, levels=None, count=3, size=20):
    """Maps with masks of several regions; few levels give ties."""
    random = np.random.default_rng(seed)
    maps, masks = [], []
    for n in range(count):
        mask = np.zeros((size + n, size + 4), bool)
        for _ in range(n):
            y, x = random.integers(0, size - 4, 2)
            mask[y : y + random.integers(1, size // 4), x : x + random.integers(1, size // 3)] = 1
        values = random.normal(size=mask.shape) + mask
        if levels:
            values = np.round(values * levels) / levels
        maps.append(values.astype(np.float32))
        masks.append(mask)
    return maps, masks


def counted(maps, masks):
    curves = PixelCurves(0, 1.5)
    for n, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        curves.add(f"kind{n % 2}", curves.measure(anomaly_map, mask))
    return curves


def naive_aupro(maps, masks, limit=0.3):
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


@given(st.integers(0, 10_000), st.sampled_from([None, 1, 2]))
@settings(max_examples=25, deadline=None)
def test_aupro_equals_a_naive_one(seed, levels):
    maps, masks = made(seed, levels=levels)
    # A naive curve without ties rises in corners, where this one takes their middle.
    tolerance = 1e-9 if levels else 2e-3
    expected = naive_aupro(maps, masks)
    assert counted(maps, masks).aupro() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("exact", [0, metrics.EXACT])
def test_maps_that_are_mostly_zero(exact, monkeypatch):
    monkeypatch.setattr(metrics, "EXACT", exact)
    maps, masks = made(3)
    maps = [np.maximum(anomaly_map - 0.8, 0) for anomaly_map in maps]
    assert counted(maps, masks).aupro() == pytest.approx(naive_aupro(maps, masks), abs=2e-3)
    constant = [np.zeros_like(anomaly_map) for anomaly_map in maps]
    assert counted(constant, masks).aupro() == pytest.approx(0.15, abs=1e-9)


@pytest.mark.parametrize("exact", [0, metrics.EXACT])
def test_figures_equal_naive_ones_to_a_millionth(exact, monkeypatch):
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    monkeypatch.setattr(metrics, "EXACT", exact)
    maps, masks = made(5, count=5, size=300)
    curves = counted(maps, masks)
    flat = [np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, maps)]
    assert curves.auroc() == pytest.approx(sklearn.roc_auc_score(*flat), abs=1e-6)
    # Rather than a thousand times over all pixels: the naive definition on exact ranks.
    good = np.sort(flat[1][~flat[0]])
    shares = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        for label in range(1, count):
            above = 1 - np.searchsorted(good, anomaly_map[labels == label]) / len(good)
            shares.append(np.maximum(0.3 - above, 0).mean())
    assert curves.aupro() == pytest.approx(np.mean(shares) / 0.3, abs=1e-6)
    some = [n for n in range(5) if n % 2 == 0 or not masks[n].any()]
    kind = np.concatenate([maps[n][masks[n]] for n in some])
    labels = [0] * len(good) + [1] * len(kind)
    expected = sklearn.roc_auc_score(labels, np.concatenate([good, kind]))
    assert curves.auroc("kind0") == pytest.approx(expected, abs=1e-6)
    assert curves.kinds == {"kind0", "kind1"}


@pytest.mark.parametrize("levels", [None, 2])
def test_ties_count_half(levels):
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    maps, masks = made(0, levels=levels)
    flat = [np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, maps)]
    assert counted(maps, masks).auroc() == pytest.approx(sklearn.roc_auc_score(*flat), abs=1e-9)


@pytest.mark.parametrize("exact", [0, metrics.EXACT])
def test_a_perfect_map_and_a_useless_one(exact, monkeypatch):
    monkeypatch.setattr(metrics, "EXACT", exact)
    mask = np.zeros((10, 10), bool)
    mask[3:6, 3:6] = True
    perfect = counted([mask.astype(np.float32)], [mask])
    assert perfect.aupro() == perfect.auroc() == 1
    assert counted([np.zeros((10, 10), np.float32)], [mask]).auroc() == 0.5


def test_values_far_from_the_limit_keep_their_order(monkeypatch):
    monkeypatch.setattr(metrics, "EXACT", 0)
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    low = np.where(mask, 100.0, -1e6).astype(np.float32)
    assert counted([low, np.full((4, 4), -3e38, np.float32)], [mask, ~mask & mask]).auroc() == 1
    assert counted([np.where(mask, 3e38, 5).astype(np.float32)], [mask]).auroc() == 1


@pytest.mark.parametrize("exact", [0, metrics.EXACT])
def test_intervals_hold_the_figures_and_are_seeded(exact, monkeypatch):
    monkeypatch.setattr(metrics, "EXACT", exact)
    curves = counted(*made(1, count=12, size=40))
    first, second = curves.estimates(0)
    assert first.value == curves.auroc() and second.value == curves.aupro()
    for estimate in (first, second):
        assert 0 <= estimate.low < estimate.value < estimate.high <= 1
    assert curves.estimates(0) == (first, second) != curves.estimates(1)


def test_many_images_are_resampled_in_groups(monkeypatch):
    monkeypatch.setattr(metrics, "_GROUPS", 4)
    maps, masks = made(1, count=12, size=40)
    grouped = counted(maps, masks).estimates(0)
    monkeypatch.undo()
    single = counted(maps, masks).estimates(0)
    for first, second in zip(grouped, single, strict=True):
        assert first.value == second.value
        assert 0.3 < (first.high - first.low) / (second.high - second.low) < 3


@pytest.mark.parametrize(
    ("anomaly_map", "mask"),
    [
        (np.zeros((4, 4), np.float32), np.zeros((4, 5), bool)),
        (np.full((4, 4), np.nan, np.float32), np.eye(4, dtype=bool)),
        (np.zeros((4, 4), np.float32), np.eye(4, dtype=np.uint8)),
    ],
)
def test_what_cannot_be_measured(anomaly_map, mask):
    with pytest.raises(DataError, match=r"one size|finite"):
        PixelCurves(0, 1).measure(anomaly_map, mask)


@pytest.mark.parametrize("mask", [np.zeros((4, 4), bool), np.ones((4, 4), bool)])
def test_without_good_or_defective_pixels_there_is_nothing_to_compare(mask):
    curves = counted([np.zeros((4, 4), np.float32)], [mask])
    assert not curves.is_complete
    for figure in (curves.auroc, curves.aupro):
        with pytest.raises(DataError, match="one kind is missing"):
            figure()
