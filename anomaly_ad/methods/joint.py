"""The frozen graphs of several methods as one, which computes once what they have in common."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from ..images import Framing
from .base import StatisticalDetector
from .heads import joined, model_input

INSIDE = "inside"


def joint_features(detectors: Sequence[StatisticalDetector], framing: Framing) -> keras.Model:
    """The features of all: "0/features" of the first, and so on; `inside` as each has it."""
    images, inside = model_input(framing)
    inputs = joined(images, inside)
    outputs = {} if inside is None else {INSIDE: inside}
    for number, detector in enumerate(detectors):
        for name, features in detector.features()(inputs).items():
            if name != INSIDE:
                outputs[f"{number}/{name}"] = features
    return keras.Model(inputs, outputs)


def head_of(detector: StatisticalDetector, graph: keras.Model) -> keras.Model:
    """What of a detector's graph comes after its features, whose names are in ascending order."""
    features = detector.features().output
    return keras.Model([features[name] for name in sorted(features)], graph.output)
