"""The main job on real photographs, small: few epochs, and a bar far below the benchmark's."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD


def test_bottle(real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    bottle = real_data / "bottle"
    ad = AD("AD0", bottle, save_path=tmp_path, img_size=(128, 128), patch_size=25).train(12)
    predictions = ad.predict(bottle / "test", tmp_path / "out")
    is_bad = np.array(["/good/" not in prediction.path for prediction in predictions])
    scores = np.array([prediction.raw_score for prediction in predictions])
    assert len(scores) == 83
    assert metrics.roc_auc_score(is_bad, scores) > 0.9
    flagged = np.array([prediction.is_anomalous for prediction in predictions])
    assert flagged[~is_bad].sum() <= 4
    assert max(ad.model.manifest.parity["deviation"].values()) <= 1e-4
