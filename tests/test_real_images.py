"""The main job on real photographs: the methods of one pass, and an autoencoder cut short."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD


def inspect(method, folder, tmp_path, **options):
    """Train a method; give what it says of the test images, and which are bad."""
    ad = AD(method, folder, save_path=tmp_path, **options).train()
    predictions = ad.predict(folder / "test", save=False)
    is_bad = np.array([Path(prediction.path).parent.name != "good" for prediction in predictions])
    return ad, predictions, is_bad


@pytest.mark.parametrize(
    ("method", "image_bar", "pixel_bar"),
    [
        ("padim", 0.999, 0.980),
        ("patchcore", 0.999, 0.987),
        ("dfm", 0.99, None),
        ("dfkde", 0.95, None),
    ],
)
def test_bottle(method, image_bar, pixel_bar, real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    bottle = real_data / "bottle"
    ad, predictions, is_bad = inspect(method, bottle, tmp_path, img_size=(256, 256))
    scores = [p.raw_score for p in predictions]
    assert metrics.roc_auc_score(is_bad, scores) >= image_bar
    precision, recall, _ = metrics.precision_recall_curve(is_bad, scores)
    assert (2 * precision * recall / (precision + recall)).max() >= 0.93
    flagged = np.array([prediction.is_anomalous for prediction in predictions])
    assert flagged[~is_bad].sum() <= 1 and flagged[is_bad].sum() >= 60
    assert max(ad.model.manifest.parity["deviation"].values()) <= 1e-4
    if pixel_bar is not None:
        assert ad.evaluate(bottle).pixel_auroc.value >= pixel_bar
    model = list((tmp_path / "model").iterdir())
    assert sum(path.stat().st_size for path in model) < 50e6
    assert next(path for path in model if path.suffix == ".bin").stat().st_size < 24e6


@pytest.mark.parametrize("method", ["padim", "dfm"])
def test_magnetic_tile(method, real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    _, predictions, is_bad = inspect(method, real_data / "magnetic_tile", tmp_path)
    assert metrics.roc_auc_score(is_bad, [p.raw_score for p in predictions]) >= 0.93


def test_patchcore_at_its_defaults_on_bottle(real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    ad, predictions, is_bad = inspect("patchcore", real_data / "bottle", tmp_path)
    assert ad.img_size == (384, 384)
    assert metrics.roc_auc_score(is_bad, [p.raw_score for p in predictions]) >= 0.999
    flagged = np.array([prediction.is_anomalous for prediction in predictions])
    assert flagged[~is_bad].sum() <= 1 and flagged[is_bad].sum() >= 57


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
