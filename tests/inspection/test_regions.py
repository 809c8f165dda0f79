import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ad.errors import OptionError
from anomaly_ad.inspection.regions import deviating_cells, peak_cell
from anomaly_ad.model import check_patch_size


def naive_cells(anomaly_map, patch_size, limit):
    boxes = []
    height, width = anomaly_map.shape
    for y in range(0, height, patch_size):
        for x in range(0, width, patch_size):
            box = [x, y, min(x + patch_size, width), min(y + patch_size, height)]
            if anomaly_map[y : y + patch_size, x : x + patch_size].max() > limit:
                boxes.append(box)
    return boxes


@given(st.integers(4, 60), st.integers(4, 60), st.integers(4, 30), st.integers(0, 1000))
def test_cells_equal_those_of_two_loops(height, width, patch_size, seed):
    anomaly_map = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    limit = float(np.quantile(anomaly_map, 0.99))
    boxes = deviating_cells(anomaly_map, patch_size, limit)
    assert boxes.dtype == np.int32
    assert boxes.tolist() == naive_cells(anomaly_map, patch_size, limit)
    peak = peak_cell(anomaly_map, patch_size)
    assert peak.shape == (1, 4)
    x1, y1, x2, y2 = peak[0]
    assert anomaly_map[y1:y2, x1:x2].max() == anomaly_map.max()


def test_no_cell_deviates():
    assert deviating_cells(np.zeros((20, 20), np.float32), 5, 0).shape == (0, 4)


@pytest.mark.parametrize("patch_size", [3, 65, 8.0, True, "8", None, -8])
def test_patch_sizes_that_do_not_fit(patch_size):
    with pytest.raises(OptionError, match="from 4 to 64"):
        check_patch_size(patch_size, (64, 100))
