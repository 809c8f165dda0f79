"""The main job on real photographs: padim at its defaults, an autoencoder cut short."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.images import read_image
from anomaly_ad.metrics import pixel_auroc


def inspect(folder, tmp_path, **options):
    """Train padim at its defaults; give what it says of the test images, and which are bad."""
    ad = AD("padim", folder, save_path=tmp_path).train()
    predictions = ad.predict(folder / "test", save=False, **options)
    is_bad = np.array(["/good/" not in prediction.path for prediction in predictions])
    return predictions, is_bad


def test_padim_on_bottle(real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    bottle = real_data / "bottle"
    predictions, is_bad = inspect(bottle, tmp_path, maps=True)
    assert metrics.roc_auc_score(is_bad, [p.raw_score for p in predictions]) >= 0.999
    flagged = np.array([prediction.is_anomalous for prediction in predictions])
    assert flagged[~is_bad].sum() <= 1 and flagged[is_bad].sum() >= 60
    masks, maps = [], []
    for prediction in predictions:
        image = Path(prediction.path)
        mask = bottle / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        shape = prediction.image_size
        masks.append(read_image(mask)[..., 0] > 127 if mask.exists() else np.zeros(shape, bool))
        maps.append(cv2.resize(prediction.anomaly_map, shape[::-1]))
    assert pixel_auroc(maps, masks) >= 0.980
    model = list((tmp_path / "model").iterdir())
    assert sum(path.stat().st_size for path in model) < 50e6
    assert next(path for path in model if path.suffix == ".bin").stat().st_size < 24e6


def test_padim_on_magnetic_tile(real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    predictions, is_bad = inspect(real_data / "magnetic_tile", tmp_path)
    assert metrics.roc_auc_score(is_bad, [p.raw_score for p in predictions]) >= 0.93


def test_an_autoencoder_on_bottle(real_data, tmp_path):
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
