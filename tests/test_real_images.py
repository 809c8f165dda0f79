"""The main job on real photographs: the methods of one pass, and an autoencoder cut short."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.data.check import check
from anomaly_ad.images import Photograph, read_image
from anomaly_ad.methods.padim import Padim


def inspect(method, folder, save_path, **options):
    """Train a method; give what it says of the test images, and which are bad."""
    ad = AD(method, folder, save_path=save_path, **options).train()
    predictions = ad.predict(folder / "test", save=False)
    is_bad = np.array([Path(prediction.path).parent.name != "good" for prediction in predictions])
    return ad, predictions, is_bad


@pytest.fixture(scope="module")
def padim(real_data, tmp_path_factory):
    return inspect("padim", real_data / "bottle", tmp_path_factory.mktemp("padim"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "image_bar", "pixel_bar"),
    [
        ("padim", 0.999, 0.970),
        ("patchcore", 0.999, 0.987),
        ("dfm", 0.99, None),
        ("dfkde", 0.95, None),
    ],
)
def test_bottle(method, image_bar, pixel_bar, real_data, tmp_path, request):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    bottle = real_data / "bottle"
    if method == "padim":  # whose default is 256x256
        ad, predictions, is_bad = request.getfixturevalue("padim")
    else:
        ad, predictions, is_bad = inspect(method, bottle, tmp_path, img_size=(256, 256))
    assert ad.img_size == (256, 256)
    scores = [p.raw_score for p in predictions]
    assert metrics.roc_auc_score(is_bad, scores) >= image_bar
    precision, recall, _ = metrics.precision_recall_curve(is_bad, scores)
    assert (2 * precision * recall / (precision + recall)).max() >= 0.93
    flagged = np.array([prediction.is_anomalous for prediction in predictions])
    assert flagged[~is_bad].sum() <= 1 and flagged[is_bad].sum() >= 60
    assert max(ad.model.manifest.parity["deviation"].values()) <= 1e-4
    if pixel_bar is not None:
        assert ad.evaluate(bottle).pixel_auroc.value >= pixel_bar
    model = list(ad.model.directory.iterdir())
    assert sum(path.stat().st_size for path in model) < 50e6
    assert next(path for path in model if path.suffix == ".bin").stat().st_size < 24e6


@pytest.mark.slow
def test_unseen_scores_of_padim_are_those_of_trainings_without_each(
    real_data, tmp_path, monkeypatch
):
    """But for the scales of the layers, which are those of all images."""
    files = sorted((real_data / "bottle" / "train" / "good").iterdir())
    for count in (15, 60):
        ad = AD("padim", files[:count], save_path=tmp_path / str(count)).train()
        assert ad.model.manifest.training["folds"] == count
        scores = ad.model.state()["held_out_scores"]
        with monkeypatch.context() as patched:  # the trainings without need no unseen scores
            patched.setattr(Padim, "folds", lambda self, count: 2)
            patched.setattr(Padim, "unseen_scorer", lambda self, statistic: None)
            for index in (scores.argmax(), scores.argsort()[count // 2]):
                others = files[:index] + files[index + 1 : count]
                without = AD("padim", others, save_path=tmp_path / "without").train()
                alone = without.predict(files[index], save=False)
                assert 0.97 < scores[index] / alone.raw_score < 1.03


@pytest.mark.slow
def test_padim_on_magnetic_tile(real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    _, predictions, is_bad = inspect("padim", real_data / "magnetic_tile", tmp_path)
    assert metrics.roc_auc_score(is_bad, [p.raw_score for p in predictions]) >= 0.93


@pytest.mark.slow
def test_patchcore_at_its_defaults_on_bottle(real_data, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    ad, predictions, is_bad = inspect("patchcore", real_data / "bottle", tmp_path)
    assert ad.img_size == (384, 384)
    assert metrics.roc_auc_score(is_bad, [p.raw_score for p in predictions]) >= 0.999
    flagged = np.array([prediction.is_anomalous for prediction in predictions])
    assert flagged[~is_bad].sum() <= 1 and flagged[is_bad].sum() >= 57


@pytest.mark.slow
def test_figures_on_bottle_are_those_of_scikit_learn(real_data, padim):
    """All pixels of all images, in steps, compared with all of them sorted."""
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    bottle = real_data / "bottle"
    ad, predictions, is_bad = padim
    found = ad.evaluate(bottle)
    scores = [prediction.raw_score for prediction in predictions]
    assert found.auroc.value == pytest.approx(metrics.roc_auc_score(is_bad, scores), abs=1e-6)
    average = metrics.average_precision_score(is_bad, scores)
    assert found.average_precision.value == pytest.approx(average, abs=1e-6)
    flagged = [prediction.is_anomalous for prediction in predictions]
    assert found.f1.value == pytest.approx(metrics.f1_score(is_bad, flagged), abs=1e-6)
    framing, engine = ad.model.manifest.plan.framing, ad.model.engine
    good, defective, regions = [], [], []
    for image in (Path(prediction.path) for prediction in predictions):
        photo = Photograph.read(image, framing)
        taken = photo.take()
        raw = engine.run(taken.views, ("anomaly_map",))["anomaly_map"][0]
        anomaly_map = taken.map_to_original(raw)
        path = bottle / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        mask = np.zeros(anomaly_map.shape, bool)
        if path.exists():
            mask = read_image(path)[..., 0] > 127
            count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            regions += [anomaly_map[labels == label] for label in range(1, count)]
        good.append(anomaly_map[~mask])
        defective.append(anomaly_map[mask])
    values = np.concatenate([*good, *defective])
    labels = np.repeat([0, 1], [sum(map(len, good)), sum(map(len, defective))])
    pixels = metrics.roc_auc_score(labels, values)
    assert found.pixel_auroc.value == pytest.approx(pixels, abs=1e-6)
    ascending = np.sort(np.concatenate(good))
    gains = [
        np.maximum(0.3 - 1 + np.searchsorted(ascending, region) / len(ascending), 0).mean()
        for region in regions
    ]
    assert found.aupro.value == pytest.approx(np.mean(gains) / 0.3, abs=1e-6)


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bottle", "hazelnut_small"])
def test_check_finds_planted_defects_and_leaves_clean_sets_alone(name, real_data, tmp_path):
    clean = check(real_data / name, progress=False)
    assert not clean.errors and not {"copies", "labelled_twice"} & {f.name for f in clean.findings}
    flagged = [f for f in clean.findings if f.name == "outliers"]
    assert sum(len(f.files) for f in flagged) <= 0.05 * clean.n_train
    good = sorted((real_data / name / "train" / "good").iterdir())
    kinds = sorted(path for path in (real_data / name / "test").iterdir() if path.name != "good")
    bad = [file for kind in kinds for file in sorted(kind.iterdir())[:2]][:5]
    for n, file in enumerate([*good, *bad]):
        (tmp_path / f"{n:03d}{file.suffix}").symlink_to(file)
    found = next(f for f in check(tmp_path, progress=False).findings if f.name == "outliers")
    numbers = [int(Path(file).stem) for (file,) in found.files]
    assert sum(number >= len(good) for number in numbers) >= 2
    assert sum(number < len(good) for number in numbers) <= 0.05 * len(good)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("bottle", 2, 2),
        ("hazelnut_small", 0, 0),
        ("transistor_small", 0, 0),
        ("magnetic_tile", 150, 200),
    ],
)
def test_photographs_of_one_part_are_near_copies(name, least, most, real_data):
    """One bottle was photographed twice; many tiles several times, moments after each other."""
    found = check(real_data / name, outliers=False, progress=False).findings
    pairs = [finding.files for finding in found if finding.name == "near_copies"]
    files = {file for pair in pairs for both in pair for file in both}
    assert least <= len(files) <= most
    if name == "bottle":
        assert {Path(file).name for file in files} == {"069.jpg", "070.jpg"}
