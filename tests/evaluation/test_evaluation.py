"""How good a model is on labelled images: the figures, and what is left out of them."""

import json
import shutil

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.evaluation import metrics as pixel_metrics
from anomaly_ad.images import Photograph, read_image


@pytest.fixture(scope="module")
def model(trained):
    return AD(trained)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Good parts, and bars and specks with masks."""
    root = tmp_path_factory.mktemp("labelled")
    write_parts(root / "test" / "good", 5, first=100)
    write_parts(root / "test" / "bar", 4, first=200, defect=True)
    for n in range(200, 204):
        part = draw_part(n, defect=True).astype(int) - draw_part(n)
        mask = (np.abs(part).max(axis=-1) > 60).astype(np.uint8) * 255
        target = root / "ground_truth" / "bar" / f"{n}_mask.png"
        write_image(target, np.repeat(mask[..., None], 3, axis=2))
    for n in range(3):
        image = draw_part(300 + n)
        image[10:13, 10:13] = 255
        write_image(root / "test" / "speck" / f"{n}.png", image)
        mask = np.zeros((64, 64, 3), np.uint8)
        mask[10:13, 10:13] = 255
        write_image(root / "ground_truth" / "speck" / f"{n}_mask.png", mask)
    return root


def test_the_figures_are_those_of_scikit_learn(model, labelled, capsys):
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the extra 'eval'")
    found = model.evaluate(labelled)
    printed = capsys.readouterr().out
    predictions = model.predict(labelled / "test", save=False, maps=True)
    bad = np.array(["/good/" not in p.path for p in predictions])
    scores = np.array([p.raw_score for p in predictions])
    flagged = np.array([p.is_anomalous for p in predictions])
    assert (found.n_good, found.n_defective) == (5, 7)
    assert (found.rejected, found.found) == (flagged[~bad].sum(), flagged[bad].sum())
    assert found.auroc.value == pytest.approx(metrics.roc_auc_score(bad, scores), abs=1e-9)
    average = metrics.average_precision_score(bad, scores)
    assert found.average_precision.value == pytest.approx(average, abs=1e-9)
    assert found.f1.value == pytest.approx(metrics.f1_score(bad, flagged), abs=1e-9)
    at_best = [
        p.is_anomalous
        for p in model.predict(labelled / "test", save=False, thresh=found.best_f1_threshold)
    ]
    assert found.best_f1.value == pytest.approx(metrics.f1_score(bad, at_best), abs=1e-9)
    masks, maps = [], []
    framing, engine = model.model.manifest.plan.framing, model.model.engine
    for prediction in predictions:
        kind, name = prediction.path.split("/")[-2:]
        mask = labelled / "ground_truth" / kind / name.replace(".png", "_mask.png")
        masks.append(read_image(mask)[..., 0] > 127 if mask.exists() else np.zeros((64, 64), bool))
        taken = Photograph.read(prediction.path, framing).take()
        maps.append(taken.map_to_original(engine.run(taken.views)["anomaly_map"][0]))
    pixels = metrics.roc_auc_score(np.ravel(masks), np.ravel(maps))
    assert found.pixel_auroc.value == pytest.approx(pixels, abs=1e-6)
    assert [(k.name, k.n_images) for k in found.kinds] == [("bar", 4), ("speck", 3)]
    bars = np.array(["/speck/" not in p.path for p in predictions])
    expected = metrics.roc_auc_score(bad[bars], scores[bars])
    assert found.kinds[0].auroc.value == pytest.approx(expected)
    assert found.omitted == {} and found.errors == {}
    lines = printed.splitlines()
    assert "MVTec layout" in lines[0]
    assert f"{found.rejected} of 5 rejected" in lines[1]
    assert f"{found.found} of 7 found" in lines[2]
    assert json.loads(found.to_json())["auroc"]["value"] == found.auroc.value


def test_small_sets_come_with_a_warning(model, labelled):
    warnings = " ".join(model.evaluate(labelled).warnings)
    assert "5 good images are too few to confirm" in warnings
    assert "7 defective images are too few to tell" in warnings


@pytest.mark.parametrize(("kept", "missing"), [("good", "defective"), ("bar", "good")])
def test_of_one_kind_alone_only_rates_are_given(model, labelled, tmp_path, kept, missing):
    shutil.copytree(labelled / "test" / kept, tmp_path / kept)
    found = model.evaluate(tmp_path)
    for name in ("auroc", "average_precision", "f1", "best_f1", "best_f1_threshold"):
        assert getattr(found, name) is None
        assert found.omitted[name] == f"there are no {missing} images"
    assert found.pixel_auroc is None and found.aupro is None
    assert (found.rejection_rate is None) == (kept != "good")
    assert (found.detection_rate is None) == (kept == "good")
    text = str(found)
    assert "nan" not in text and "Not computed:" in text and f"no {missing} images" in text
    assert json.loads(found.to_json())["auroc"] is None


def test_without_masks_figures_of_pixels_are_left_out(model, labelled, tmp_path):
    shutil.copytree(labelled / "test", tmp_path / "test")
    found = model.evaluate(tmp_path)
    assert found.omitted == {"pixel_auroc": "there are no masks", "aupro": "there are no masks"}
    assert found.auroc is not None and found.kinds[0].pixel_auroc is None


def test_some_masks_are_enough_and_it_is_said(model, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "ground_truth" / "speck")
    found = model.evaluate(tmp_path / "part")
    assert found.pixel_auroc is not None
    assert found.kinds[0].pixel_auroc is not None and found.kinds[1].pixel_auroc is None
    assert any("3 defective images have no mask" in warning for warning in found.warnings)


def test_empty_masks_leave_nothing_to_compare(model, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "part")
    for mask in (tmp_path / "part" / "ground_truth").rglob("*.png"):
        write_image(mask, np.zeros((64, 64, 3), np.uint8))
    found = model.evaluate(tmp_path / "part")
    assert found.pixel_auroc is None and "no pixel is marked" in found.omitted["aupro"]


def test_masks_of_zeros_and_ones_and_those_that_mark_nothing(model, labelled, tmp_path):
    expected = model.evaluate(labelled).pixel_auroc
    shutil.copytree(labelled, tmp_path / "part")
    masks = sorted((tmp_path / "part" / "ground_truth").rglob("*.png"))
    for mask in masks:
        write_image(mask, (read_image(mask) > 127).astype(np.uint8))
    assert model.evaluate(tmp_path / "part").pixel_auroc == expected
    write_image(masks[0], np.zeros((64, 64, 3), np.uint8))
    found = model.evaluate(tmp_path / "part")
    assert found.n_unmarked == 1
    assert any("1 masks of defective images mark no pixel" in w for w in found.warnings)


def test_images_that_the_model_knows_are_counted_and_told(model, labelled, tmp_path):
    found = model.evaluate(labelled)
    assert found.n_learnt == found.n_calibrated == 0
    folder = write_parts(tmp_path / "mixed" / "good", 3)  # as the training has them
    write_parts(folder.parent / "bar", 2, first=200, defect=True)
    found = model.evaluate(folder.parent)
    assert found.n_learnt == found.n_good == 3
    known = "3 of these images were in the training. Their scores are lower"
    assert found.warnings[0].startswith(known) and f"Warning: {known}" in str(found)


def test_a_best_limit_below_good_images_is_not_given(model, labelled):
    files = sorted((labelled / "test").rglob("*.png"))
    found = model.evaluate(files, labels=[int(file.parent.name == "good") for file in files])
    assert found.best_f1_threshold is None and "below typical" in found.omitted["best_f1_threshold"]
    with pytest.raises(OptionError, match="seed"):
        model.evaluate(labelled, seed=-1)


def test_a_limit_far_away_leaves_the_figures_of_pixels(model, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_metrics, "EXACT", 0)
    expected = model.evaluate(labelled).pixel_auroc
    far = AD(model.model.directory, save_path=tmp_path).calibrate(limit=1e9)
    assert far.evaluate(labelled).pixel_auroc == expected


def test_a_mask_of_another_size_is_an_error_that_names_it(model, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "part")
    write_image(
        tmp_path / "part" / "ground_truth" / "bar" / "201_mask.png",
        np.zeros((32, 64, 3), np.uint8),
    )
    with pytest.raises(DataError, match=r"201_mask\.png is 32x64 pixels and its image 64x64"):
        model.evaluate(tmp_path / "part")


def test_broken_images_are_counted_apart(model, labelled, tmp_path):
    shutil.copytree(labelled / "test", tmp_path / "test")
    (tmp_path / "test" / "good" / "torn.png").write_bytes(b"no image")
    found = model.evaluate(tmp_path)
    assert found.n_good == 5 and len(found.errors) == 1
    assert any("1 image could not be inspected" in warning for warning in found.warnings)
    assert "not inspected" in str(found)
    with pytest.raises(DataError, match="None of the 1 images could be inspected"):
        model.evaluate([tmp_path / "test" / "good" / "torn.png"], labels=[0])


def test_a_list_with_labels_and_a_threshold(model, labelled):
    files = sorted((labelled / "test").rglob("*.png"))
    labels = [file.parent.name for file in files]
    folder, listed = model.evaluate(labelled / "test"), model.evaluate(files, labels=labels)
    assert listed.auroc == folder.auroc and listed.layout == "labels by file"
    strict = model.evaluate(files, labels=labels, thresh=0.01)
    assert strict.rejected >= folder.rejected and strict.threshold == 0.01
    with pytest.raises(OptionError, match="thresh"):
        model.evaluate(files, labels=labels, thresh=2)


def test_more_alarms_than_stated_are_said(model, labelled, tmp_path):
    write_parts(tmp_path / "good", 30, first=400, defect=True)  # another day, in another light
    warnings = " ".join(model.evaluate(tmp_path).warnings)
    assert "more good parts are rejected than" in warnings
