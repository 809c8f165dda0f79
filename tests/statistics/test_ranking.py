"""Partial AUROC against scikit-learn's curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ad.statistics.ranking import partial_auroc

scores = st.lists(st.integers(0, 9), min_size=1, max_size=30)


def area_of_the_curve(good, defective, most):
    """By integration over the points of the ROC curve, cut at `most`."""
    curve = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'").roc_curve
    truth = np.r_[np.zeros(len(good)), np.ones(len(defective))]
    alarms, found, _ = curve(truth, np.r_[good, defective], drop_intermediate=False)
    at_end = found[alarms == most][0] if (alarms == most).any() else np.interp(most, alarms, found)
    x, y = np.r_[alarms[alarms < most], most], np.r_[found[alarms < most], at_end]
    return ((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / most


@given(scores, scores, st.sampled_from([0.03, 0.05, 0.2, 0.5, 1.0]))
def test_it_is_the_area_under_the_curve(good, defective, most):
    expected = area_of_the_curve(good, defective, most)
    assert partial_auroc(good, defective, most) == pytest.approx(expected, abs=1e-12)


def test_ends_and_chance():
    good = np.arange(100.0)
    assert partial_auroc(good, good + 100, 0.05) == pytest.approx(1)
    assert partial_auroc(good, good - 100, 0.05) == 0
    assert partial_auroc(good, good, 0.05) == pytest.approx(0.025)
    assert partial_auroc(good, good) == pytest.approx(0.5)
    assert partial_auroc([1.0], [1.0], 0.05) == pytest.approx(0.025)
