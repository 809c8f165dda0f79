// Thresholds of a model in a page: the same steps in the same order as calibration.Limit.raw, so
// that page and Python never differ. `limits` holds median and limit, in raw units.
const LIMIT_SCORE = 0.8;

function rawThreshold(limits, score) {
  if (score === LIMIT_SCORE) return limits.limit;
  if (score >= 1) return Infinity;
  const t = score < LIMIT_SCORE ? score / LIMIT_SCORE : 1 + ((1 - LIMIT_SCORE) / (1 - score) - 1) / 4;
  return limits.median + t * (limits.limit - limits.median);
}
