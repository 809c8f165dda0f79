"""The fit of found and missed over size: against other ways to compute it, and its odd cases."""

import math

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the extra 'eval'")

from scipy import stats

from anomaly_ad.evaluation.hitmiss import fit_hit_miss


def drawn(seed, n=120, slope=4.0, a50=20.0, images=None, effect=0.0):
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(math.log(4), math.log(100), n))
    of = np.arange(n) if images is None else random.integers(images, size=n)
    logit = slope * np.log(sizes / a50) + effect * random.normal(size=of.max() + 1)[of]
    return sizes, random.random(n) < 1 / (1 + np.exp(-logit)), of


def test_the_fit_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    sizes, found, _ = drawn(0)
    fit = fit_hit_miss(sizes, found)
    other = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    other.fit(np.log(sizes)[:, None], found)
    assert fit.slope == pytest.approx(other.coef_[0, 0], rel=1e-4)
    assert fit.intercept == pytest.approx(other.intercept_[0], rel=1e-4)
    assert fit.probability(fit.a90) == pytest.approx(0.9)


def test_the_interval_is_that_of_a_search_over_all_curves():
    sizes, found, _ = drawn(1, n=60)
    fit = fit_hit_miss(sizes, found)
    x = np.log(sizes)
    q, b = np.meshgrid(np.linspace(2.5, 5, 301), np.linspace(0, 15, 301))
    logit = math.log(9) + b[..., None] * (x - q[..., None])
    likelihood = -np.logaddexp(0, np.where(found, -logit, logit)).sum(axis=-1)
    profile = likelihood.max(axis=0)
    # Cut at the quantile of F with 1 and n - 1 degrees of freedom.
    inside = q[0][profile >= likelihood.max() - 0.5 * stats.f.ppf(0.95, 1, 59)]
    assert math.log(fit.low) == pytest.approx(inside.min(), abs=0.01)
    assert math.log(fit.high) == pytest.approx(inside.max(), abs=0.01)
    inside = q[0][profile >= likelihood.max() - 0.5 * stats.f.ppf(0.90, 1, 59)]
    assert math.log(fit.a90_95) == pytest.approx(inside.max(), abs=0.01)
    assert fit.low < fit.a90 < fit.a90_95 < fit.high


def test_sizes_in_another_unit_give_the_same_in_that_unit():
    sizes, found, images = drawn(2, images=15)
    fit, other = (fit_hit_miss(scale * sizes, found, images) for scale in (1, 0.05))
    for name in ("a90", "low", "high", "a90_95"):
        assert getattr(other, name) == pytest.approx(0.05 * getattr(fit, name), rel=1e-3)
    assert other.design_effect == pytest.approx(fit.design_effect)


@pytest.mark.parametrize(
    ("sizes", "found", "words"),
    [
        ([1, 2, 3], [1, 1, 1], "all were found"),
        ([1, 2, 3], [0, 0, 0], "none was found"),
        ([1, 2, 3, 4, 5, 6], [1, 1, 0, 1, 0, 0], "not found more often"),
        ([3, 3, 3, 3], [1, 0, 1, 0], "the same size"),
    ],
)
def test_where_there_is_no_fit_it_says_why(sizes, found, words):
    assert words in fit_hit_miss(sizes, found)


def test_found_and_missed_that_do_not_overlap_have_an_interval():
    sizes = np.linspace(5, 50, 46)
    fit = fit_hit_miss(sizes, sizes > 20)
    assert fit.is_separated and fit.a90 == pytest.approx(21)
    # An a90 below the largest that was missed is refuted, one a little above 21 is not.
    assert 19.5 < fit.low < 20.1 and 22 < fit.a90_95 < fit.high < 30
    assert math.isfinite(fit.slope)


def test_where_detection_hardly_grows_the_interval_has_no_end():
    sizes = np.tile([10.0, 20.0], 10)
    found = np.tile([True, False, True, True, False, True, False, True], 3)[:20]
    fit = fit_hit_miss(sizes, found)
    assert fit.slope > 0 and fit.high is None and fit.a90_95 is None


@pytest.mark.slow
def test_the_interval_covers_also_where_defects_share_images():
    """Of 200 series on 10 images with effects of their own; the truth by numbers of many."""
    sizes, found, _ = drawn(0, n=400_000, images=100_000, effect=1.5)
    truth = fit_hit_miss(sizes[:100_000], found[:100_000])
    naive, robust = [], []
    for seed in range(1, 201):
        sizes, found, images = drawn(seed, n=200, images=10, effect=1.5)
        for kept, of in ((naive, None), (robust, images)):
            fit = fit_hit_miss(sizes, found, of)
            kept.append(fit.low <= truth.a90 <= (fit.high or math.inf))
    assert np.mean(robust) >= 0.92 > np.mean(naive)
