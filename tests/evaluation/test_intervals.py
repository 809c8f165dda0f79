"""Figures and their intervals: against SciPy, scikit-learn and plain loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_ad.evaluation.intervals import Ranking, auroc, cases_needed, wilson

SCORES = st.lists(st.integers(-3, 6).map(float), min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("cases", "count"), [(0, 1), (0, 20), (1, 20), (10, 20), (20, 20), (3, 999)]
)
def test_wilson_is_that_of_scipy(cases, count):
    stats = pytest.importorskip("scipy.stats", reason="needs the extra 'eval'")
    expected = stats.binomtest(cases, count).proportion_ci(method="wilson")
    received = wilson(cases / count, count)
    assert received.value == cases / count
    assert (received.low, received.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("rate", [0.2, 0.05, 0.01])
def test_how_many_cases_show_a_rate(rate):
    needed = cases_needed(rate)
    assert wilson(0, needed).high <= rate + 1e-12 < wilson(0, needed - 1).high


@given(SCORES, SCORES)
@settings(max_examples=50, deadline=None)
def test_auroc_is_that_of_scikit_learn(good, defective):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    labels = [0] * len(good) + [1] * len(defective)
    received = auroc(good, defective)
    assert received.value == pytest.approx(metrics.roc_auc_score(labels, good + defective))
    assert 0 <= received.low <= received.value <= received.high <= 1
    assert received.low < received.high


def test_the_interval_is_delongs():
    """The variance as the paper writes it, over all pairs."""
    random = np.random.default_rng(0)
    good, defective = random.normal(size=30), random.normal(1, 2, 40)
    better = (defective[:, None] > good) + 0.5 * (defective[:, None] == good)
    area = better.mean()
    first = ((better.mean(axis=1) - area) ** 2).sum() / (len(defective) - 1)
    second = ((better.mean(axis=0) - area) ** 2).sum() / (len(good) - 1)
    half = 1.959964 * np.sqrt(first / len(defective) + second / len(good))
    received = auroc(good, defective)
    assert (received.low, received.high) == pytest.approx((area - half, area + half), abs=1e-6)


def test_the_interval_covers_the_truth():
    """Scores with a known area, many times: about 95 of 100 intervals hold it."""
    random = np.random.default_rng(0)
    truth = 0.8413447  # P(N(sqrt 2, 1) > N(0, 1)) = Phi(1)
    intervals = [auroc(random.normal(size=60), random.normal(2**0.5, 1, 60)) for _ in range(400)]
    assert 0.92 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.98


def test_perfect_separation_is_not_certainty():
    few, many = auroc([0, 1], [2, 3]), auroc(range(50), range(50, 150))
    assert few.value == many.value == few.high == 1
    assert few.low < 0.5 < 0.9 < many.low < 1


def curve(good, defective):
    """F1 and cost by every limit there can be, in a loop."""
    values = sorted({*good, *defective})
    limits = [values[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(values)), values[-1]]
    for limit in limits:
        found = sum(score > limit for score in defective)
        alarms = sum(score > limit for score in good)
        yield limit, found, alarms


@given(SCORES, SCORES, st.sampled_from([0.05, 1.0, 20.0]), st.floats(-6, 9))
@settings(max_examples=80, deadline=None)
def test_limits_are_the_best_there_are(good, defective, ratio, lowest):
    ranking = Ranking(good, defective)

    def f1(limit):
        found = sum(score > limit for score in defective)
        return 2 * found / (found + sum(score > limit for score in good) + len(defective))

    def cost(limit):
        misses = sum(score <= limit for score in defective)
        return ratio * sum(score > limit for score in good) + misses

    limits = [limit for limit, _, _ in curve(good, defective)]
    assert f1(ranking.limit_of_best_f1()) == pytest.approx(max(map(f1, limits)))
    assert cost(ranking.limit_of_least_cost(ratio)) == pytest.approx(min(map(cost, limits)))
    # And of those from a value on.
    best, cheapest = ranking.limit_of_best_f1(lowest), ranking.limit_of_least_cost(ratio, lowest)
    allowed = [lowest, *(limit for limit in limits if limit >= lowest), math.inf]
    assert best >= lowest and f1(best) == pytest.approx(max(map(f1, allowed)))
    assert cheapest >= lowest and cost(cheapest) == pytest.approx(min(map(cost, allowed)))


@given(SCORES, SCORES, st.integers(-4, 7))
@settings(max_examples=50, deadline=None)
def test_figures_of_the_ranking_are_those_of_scikit_learn(good, defective, limit):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    labels = np.array([0] * len(good) + [1] * len(defective))
    scores = np.array(good + defective)
    at_limit, best, average = Ranking(good, defective).estimates(limit, 0)
    assert at_limit.value == pytest.approx(
        metrics.f1_score(labels, scores > limit, zero_division=0), abs=1e-9
    )
    precision, recall, _ = metrics.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert best.value == pytest.approx(f1.max(), abs=1e-9)
    expected = metrics.average_precision_score(labels, scores)
    assert average.value == pytest.approx(expected, abs=1e-9)
    for estimate in (at_limit, best, average):
        assert estimate.low <= estimate.value <= estimate.high


def test_resampling_is_seeded_and_narrows_with_more_images():
    random = np.random.default_rng(0)
    good, defective = random.normal(size=2000), random.normal(1, 1, 2000)
    few = Ranking(good[:40], defective[:40]).estimates(0.5, 0)
    assert few == Ranking(good[:40], defective[:40]).estimates(0.5, 0)
    assert few != Ranking(good[:40], defective[:40]).estimates(0.5, 1)
    many = Ranking(good, defective).estimates(0.5, 0)
    for first, second in zip(few, many, strict=True):
        assert 3 < (first.high - first.low) / (second.high - second.low) < 15
