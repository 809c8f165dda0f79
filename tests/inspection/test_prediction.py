import dataclasses

import numpy as np
import pytest

from anomaly_ad import AnomalyADError, Prediction

GOOD = {
    "path": "a.png",
    "image_size": (10, 20),
    "score": 0.5,
    "raw_score": 3.0,
    "threshold": 0.8,
    "is_anomalous": False,
    "anomaly_map": None,
    "boxes": np.empty((0, 4), np.int32),
}


def test_a_prediction_is_frozen_and_becomes_plain_values():
    prediction = Prediction(**GOOD)
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.score = 1
    values = prediction.to_dict()
    assert values["n_boxes"] == 0 and values["boxes"] == [] and "anomaly_map" not in values


def test_a_failed_prediction_has_an_error_and_nothing_else():
    failed = Prediction.failed("a.png", 0.8, "cut off")
    assert failed.error == "cut off" and failed.score is None and failed.is_anomalous is None
    assert failed.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"score": 1.0},
        {"score": None},
        {"raw_score": float("nan")},
        {"threshold": 1.5},
        {"boxes": np.zeros((1, 4))},
        {"boxes": np.zeros(4, np.int32)},
        {"is_anomalous": None},
        {"error": "but it has a score"},
    ],
)
def test_what_cannot_be_is_refused(change):
    with pytest.raises(AnomalyADError):
        Prediction(**{**GOOD, **change})
