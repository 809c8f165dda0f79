"""Detectors that have learnt what comes before their weights, for tests of formulas."""

import numpy as np
from conftest import draw_part

from anomaly_ad.images import Framing
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.model.plan import Plan
from anomaly_ad.training.steps import build

FRAMING = Framing(64, 64, 3)
PADDED = Framing.new(64, 96, 3, "pad")


def features_of(detector, framing, count=6):
    from anomaly_ad.runtime.convert import run_graph

    views = np.concatenate([framing.views(draw_part(n, size=96)) for n in range(count)])
    return run_graph(detector.frozen(), views)


def begun(name, framing=FRAMING, **options):
    """A detector that has learnt what comes before its weights."""
    plan = Plan.from_options(name, options)
    detector = build(Plan(name, plan.parameters, framing, 16, 0, "f32", 0.01))
    found = features_of(detector, framing)
    detector.learn_before(FeatureSet({name: values[:, None] for name, values in found.items()}))
    return detector, found
