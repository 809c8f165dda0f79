"""Rendered defects that the epochs of a training are compared by."""

import numpy as np
import pytest
from conftest import draw_part

from anomaly_ad import DataError
from anomaly_ad.images import Framing, ImageSet
from anomaly_ad.training.defects import rendered

FRAMINGS = [Framing(64, 64, 3), Framing(64, 48, 1), Framing.new(64, 96, 3, "pad")]


def views(framing, count=5):
    return ImageSet(np.stack([framing.views(draw_part(n, size=96)) for n in range(count)]))


@pytest.mark.parametrize("framing", FRAMINGS, ids=str)
def test_each_view_is_a_good_one_with_a_defect_where_it_counts(framing):
    images = views(framing)
    before = images[slice(None)].copy()
    defects = rendered(images, framing, 3)
    found = defects.images[slice(None)]
    np.testing.assert_array_equal(images[slice(None)], before)
    assert 60 <= len(found) <= 96 and found.dtype == np.uint8
    for view, place in zip(found, defects.of, strict=True):
        changed = (before[place] != view).any(axis=-1)
        assert 0 < changed.sum() < 0.2 * changed.size
        if framing.has_inside:
            assert view[..., -1][changed].all()
            np.testing.assert_array_equal(before[place, ..., -1], view[..., -1])


def test_the_seed_decides():
    images, framing = views(FRAMINGS[0]), FRAMINGS[0]
    first, same, other = (rendered(images, framing, seed).images[slice(None)] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert first.shape != other.shape or (first != other).any()


def test_where_no_defect_fits_it_is_said():
    framing = Framing.new(64, 96, 3, "pad")
    images = views(framing)[slice(None)].copy()
    images[..., -1] = 0
    with pytest.raises(DataError, match="No rendered defect fits on the images"):
        rendered(ImageSet(images[:, None]), framing, 0)
