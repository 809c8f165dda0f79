"""Probability of detection over size, from defects that were found or missed.

MIL-HDBK-1823A, hit/miss data: logit POD(a) = b0 + b1 log a. What is asked is a90, the size that is
found nine times out of ten, and a size that a90 does not exceed with a confidence of 95 % (a90/95).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import missing_extra

_LOGIT_90 = math.log(9)
# Slopes up to this one: from 10 % to 90 % while the size grows by 2 %. Where all found are larger
# than all missed, the likelihood grows with the slope without end.
_STEEPEST = 200.0
_FAR = math.log(100)  # beyond the sizes at hand by such a factor an end is not looked for


@dataclass(frozen=True)
class HitMissFit:
    """A fitted curve of detection.

    Parameters
    ----------
    intercept, slope : float
        b0 and b1 of logit POD(a) = b0 + b1 log a, a in pixels.
    a90 : float
        The size with POD 0.9, in pixels; it may lie beyond the sizes at hand.
    low, high : float or None
        The two-sided 95 % interval of a90. None: it has no such end.
    a90_95 : float or None
        The one-sided upper bound of 95 %; None where there is none.
    design_effect : float
        By how much the variance of log a90 is larger since defects share images; 1 at least.
    is_separated : bool
        Whether all found are larger than all missed. The slope is the steepest that is tried then,
        and a90 the smallest that was found.
    """

    intercept: float
    slope: float
    a90: float
    low: float | None
    high: float | None
    a90_95: float | None
    design_effect: float
    is_separated: bool

    def probability(self, size: ArrayLike) -> NDArray[np.float64]:
        """POD of sizes in pixels."""
        return _expit(self.intercept + self.slope * np.log(np.asarray(size, float)))


def fit_hit_miss(
    sizes: ArrayLike, found: ArrayLike, images: ArrayLike | None = None
) -> HitMissFit | str:
    """Fit a curve of detection by maximum likelihood.

    Parameters
    ----------
    sizes : array_like of float, shape (n,)
        In pixels, above 0.
    found : array_like of bool, shape (n,)
        Whether each was found.
    images : array_like of int, shape (n,), optional
        The image of each; None where each has its own.

    Returns
    -------
    HitMissFit or str
        The fit; or why there is none, in words: all or none were found, all have one size, or
        detection does not grow with it.

    Raises
    ------
    MissingExtraError
        SciPy is not installed.

    Notes
    -----
    The intervals are those of the likelihood ratio: all a90 whose likelihood, with the best slope
    from 0 on, is not smaller than exp(-c / 2) of the largest, where c is the quantile of chi-square
    (1 degree of freedom). They need not be finite, and exist where found and missed are separated.

    Defects on one image are not independent. Where images repeat, c is multiplied by the design
    effect, the ratio of the variance of log a90 that is robust against clusters (G images, factor
    G / (G - 1)) to the one of independent trials, if that is above 1, and the quantile is that of
    F with 1 and G - 1 degrees of freedom. docs/detection.md has the coverage that was measured.

    References
    ----------
    MIL-HDBK-1823A 2009, Nondestructive Evaluation System Reliability Assessment, section 5 and
    appendix G; Cheng, Iles 1988 for its bounds. Here only a90 is profiled, not the whole curve.
    Liang, Zeger 1986, Biometrika 73(1), equation for the robust variance.
    """
    scipy = load_scipy()
    x, hit = np.log(np.asarray(sizes, float)), np.asarray(found, bool)
    if hit.all():
        return "all were found"
    if not hit.any():
        return "none was found"
    if x.min() == x.max():
        return "all have the same size"
    clusters = np.arange(len(x)) if images is None else np.unique(images, return_inverse=True)[1]
    largest_missed, smallest_found = x[~hit].max(), x[hit].min()
    is_separated = bool(largest_missed <= smallest_found)
    effect, count = 1.0, len(x)
    if is_separated:
        slope, log_a90 = _STEEPEST, float(smallest_found)
        best = max(_profile(scipy, x, hit, q) for q in (log_a90, float(largest_missed)))
    else:
        intercept, slope = _maximum(x, hit)
        if slope <= 0:
            return "larger ones are not found more often"
        log_a90 = (_LOGIT_90 - intercept) / slope
        best = _log_likelihood(x, hit, log_a90, slope)
        if len(np.unique(clusters)) < len(x):
            effect, count = _design_effect(x, hit, clusters, intercept, slope), clusters.max() + 1

    def end(towards: float, confidence: float) -> float | None:
        """Where the likelihood of a90 has fallen by what the confidence allows."""
        quantile = scipy.stats.f.ppf(confidence, 1, max(count - 1, 1))
        least = best - 0.5 * quantile * effect
        return _crossing(scipy, lambda q: _profile(scipy, x, hit, q) - least, log_a90, towards)

    down, up = min(x.min(), log_a90) - _FAR, max(x.max(), log_a90) + _FAR
    low, high, upper = end(down, 0.95), end(up, 0.95), end(up, 0.90)
    return HitMissFit(
        intercept=_LOGIT_90 - slope * log_a90,
        slope=slope,
        a90=math.exp(log_a90),
        low=low,
        high=high,
        a90_95=upper,
        design_effect=effect,
        is_separated=is_separated,
    )


def load_scipy() -> Any:
    """The module scipy, with its optimizers and distributions."""
    try:
        import scipy
        import scipy.optimize
        import scipy.stats
    except ImportError as error:
        raise missing_extra("A curve of detection", "eval", "scipy") from error
    return scipy


def _expit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(values, -700, 700)))


def _log_likelihood(
    x: NDArray[np.float64], hit: NDArray[np.bool_], log_a90: float, slope: float
) -> float:
    logit = _LOGIT_90 + slope * (x - log_a90)
    return -float(np.logaddexp(0, np.where(hit, -logit, logit)).sum())


def _profile(scipy: Any, x: NDArray[np.float64], hit: NDArray[np.bool_], log_a90: float) -> float:
    """The log-likelihood of an a90 with the best slope; it is concave in the slope."""
    found = scipy.optimize.minimize_scalar(
        lambda slope: -_log_likelihood(x, hit, log_a90, slope),
        bounds=(0, _STEEPEST),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return max(-float(found.fun), _log_likelihood(x, hit, log_a90, 0))


def _crossing(
    scipy: Any, above: Callable[[float], float], start: float, towards: float
) -> float | None:
    """Size at which a function falls through 0 on the way from `start`; None if it does not."""
    step = 0.05 if towards > start else -0.05
    while start != towards:
        place = min(start + step, towards) if step > 0 else max(start + step, towards)
        if above(place) < 0:
            return math.exp(scipy.optimize.brentq(above, start, place, xtol=1e-4))
        start, step = place, 2 * step
    return None


def _maximum(x: NDArray[np.float64], hit: NDArray[np.bool_]) -> tuple[float, float]:
    """Intercept and slope of the largest likelihood, by Newton's method with halved steps."""
    centre = float(x.mean())
    design = np.stack([np.ones_like(x), x - centre], axis=1)
    weights = np.zeros(2)

    def value(at: NDArray[np.float64]) -> float:
        logit = design @ at
        return -float(np.logaddexp(0, np.where(hit, -logit, logit)).sum())

    for _ in range(100):
        expected = _expit(design @ weights)
        gradient = design.T @ (hit - expected)
        information = (design.T * (expected * (1 - expected))) @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(information, gradient)
        while value(weights + step) < value(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            break
    slope = min(float(weights[1]), _STEEPEST)
    return float(weights[0]) - slope * centre, slope


def _design_effect(
    x: NDArray[np.float64],
    hit: NDArray[np.bool_],
    clusters: NDArray[np.intp],
    intercept: float,
    slope: float,
) -> float:
    """Variance of log a90 robust against clusters, relative to that of independent trials."""
    design = np.stack([np.ones_like(x), x], axis=1)
    expected = _expit(design @ np.array([intercept, slope]))
    naive = np.linalg.pinv((design.T * (expected * (1 - expected))) @ design)
    count = int(clusters.max()) + 1
    scores = np.zeros((count, 2))
    np.add.at(scores, clusters, design * (hit - expected)[:, None])
    robust = naive @ (scores.T @ scores) @ naive * (count / (count - 1) if count > 1 else 1)
    # log a90 = (logit 0.9 - b0) / b1
    slopes = np.array([-1 / slope, -(_LOGIT_90 - intercept) / slope**2])
    return max(1.0, float((slopes @ robust @ slopes) / (slopes @ naive @ slopes)))
