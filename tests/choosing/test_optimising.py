import json
import os
from dataclasses import replace

import numpy as np
import pytest
from conftest import draw_part, run_command, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
pytest.importorskip("nncf", reason="quantisation needs the extra 'optimize'")

from anomaly_ad import AD
from anomaly_ad.choosing import optimising, optimize
from anomaly_ad.errors import DataError, OptionError
from anomaly_ad.evaluation.intervals import Estimate
from anomaly_ad.images import find_training_images
from anomaly_ad.inspection.probe import Speed
from anomaly_ad.model import load
from anomaly_ad.training.steps import train


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Good parts, and labelled ones, at 96x96."""
    root = tmp_path_factory.mktemp("parts")
    for n in range(20):
        write_image(root / "train" / "good" / f"{n}.png", draw_part(n, size=96))
    for n in range(4):
        write_image(root / "test" / "good" / f"{n}.png", draw_part(100 + n, size=96))
        write_image(root / "test" / "bar" / f"{n}.png", draw_part(200 + n, defect=True, size=96))
    return root


@pytest.fixture(scope="module")
def density(parts, tmp_path_factory):
    """A model of dfkde."""
    return trained_on(parts, tmp_path_factory.mktemp("density"), "dfkde")


def trained_on(parts, folder, method="padim", **options):
    ad = AD(method, parts, save_path=folder, img_size=(64, 64), **options)
    return ad.train(review=False).model


@pytest.fixture
def speeds(monkeypatch):
    """Seconds are not measured: milliseconds by precision."""

    def are(**image_ms):
        def measure(model, images):
            found = image_ms[load(model).manifest.plan.precision]
            return None if found is None else Speed(1.0, found, None)

        monkeypatch.setattr(optimising.probe, "measure", measure)

    return are


@pytest.mark.parametrize(
    ("method", "fit"),
    [
        ("padim", "pad"),
        ("padim", "stretch"),
        ("patchcore", "pad"),
        ("dfm", "pad"),
        ("dfkde", "stretch"),
    ],
)
@pytest.mark.slow
def test_what_is_saved_is_what_its_limits_come_from(parts, tmp_path, speeds, method, fit):
    """Features in INT8, the head in f32: the file computes the formula of its limits."""
    stored = trained_on(parts, tmp_path, method, fit=fit)
    speeds(f32=10.0, int8=5.0)
    before = sorted(os.listdir(stored.directory))
    found = optimize(stored, parts, margin=1.0)
    assert found.saved == str(tmp_path / "model-int8")
    quick = load(found.saved)
    assert quick.manifest.plan == replace(stored.manifest.plan, precision="int8")
    assert max(quick.manifest.parity["deviation"].values()) <= 1e-4
    assert quick.manifest.training["chosen"]["by"] == "optimize"
    images = sorted((parts / "test").rglob("*.png"))
    one_by_one = [AD(quick.directory).predict(image, save=False).raw_score for image in images]
    together = [p.raw_score for p in AD(quick.directory).predict(images, save=False)]
    assert one_by_one == pytest.approx(together, rel=1e-5)
    assert quick.good_scores().scores.shape == stored.good_scores().scores.shape
    sizes = [next(m.directory.glob("*.bin")).stat().st_size for m in (stored, quick)]
    assert sizes[1] < 0.75 * sizes[0]
    kinds = {node.get_type_name() for node in quick.engine._model.get_ops()}
    assert "FakeQuantize" in kinds
    # Scores are others, and near those of f32 where these are: on good parts and defects.
    a, b = (
        np.array([p.raw_score for p in AD(m.directory).predict(images, save=False)])
        for m in (stored, quick)
    )
    assert not np.allclose(a, b, rtol=1e-6)
    assert np.corrcoef(a, b)[0, 1] > 0.9
    assert sorted(os.listdir(stored.directory)) == before


NOTHING = Estimate(0.0, 0.0, 0.0)
BEFORE = optimising.Figures("f32", 1.0, Estimate(1, 1, 1), 5, 5, 1, 40, 0.01, 10.0, 10.0)


@pytest.mark.parametrize(
    ("changes", "worse", "words"),
    [
        ({"image_ms": 9.5}, NOTHING, "it is 1.05 times as fast, and at least 1.1 is asked"),
        ({"image_ms": None}, NOTHING, "its speed could not be measured on this machine"),
        ({}, Estimate(0.01, 0.0, 0.05), "its merit may be worse by 0.050 (found 0.010"),
        ({"rejected": 12}, NOTHING, "it rejects more good images than its limit states"),
    ],
)
def test_it_is_kept_only_where_nothing_speaks_against_it(changes, worse, words):
    after = replace(BEFORE, **{"precision": "int8", "image_ms": 5.0, **changes})
    found = optimising.Optimisation(BEFORE, after, worse, 0.02, False, ())
    assert len(found.objections) == 1
    assert f"Not kept, nothing was saved: {words}" in str(found)
    assert json.loads(found.to_json())["objections"] == found.objections


def test_what_is_as_bad_before_does_not_speak_against_it():
    after = replace(BEFORE, precision="int8", image_ms=5.0, rejected=12)
    found = optimising.Optimisation(replace(BEFORE, rejected=12), after, NOTHING, 0.02, False, ())
    assert found.objections == [] and found.speedup == 2.0


def test_the_command_says_what_it_is_worth(parts, density, tmp_path, speeds):
    speeds(f32=10.0, int8=20.0)
    output = tmp_path / "out" / "quick"
    arguments = ("optimize", density.directory, "--images", parts, "--output", output, "--json")
    out, _ = run_command(*arguments)
    found = json.loads(out)
    assert found["speedup"] == 0.5 and found["saved"] == "" and not output.exists()
    assert "4 good and 4 defective images tell little" in found["notes"][-1]


@pytest.mark.slow
def test_groups_and_excluded_images_stay(tmp_path, speeds, monkeypatch):
    good = tmp_path / "good"
    for n in range(24):
        write_image(good / f"part{n // 2}_{n}.png", draw_part(n, size=80))
    ad = AD("dfkde", good, save_path=tmp_path, img_size=(64, 64))
    ad.train(groups="part([0-9]+)_", exclude=["part0_1.png"], review=False)
    speeds(f32=10.0, int8=5.0)
    monkeypatch.setattr(optimising.Optimisation, "objections", [])
    found = optimize(ad.model, good)
    manifest = load(found.saved).manifest
    assert manifest.groups == ad.model.manifest.groups
    assert manifest.excluded == ad.model.manifest.excluded
    write_image(good / "part99_1.png", draw_part(99, size=80))
    with pytest.raises(DataError, match=r"the group of .*part99_1.png is not known"):
        optimize(ad.model, good)


def test_what_cannot_be_quantised(parts, trained, density, tmp_path):
    with pytest.raises(OptionError, match=r"AD0 is not quantised.*padim, patchcore"):
        AD(trained).optimize(parts)
    stored = density
    with pytest.raises(OptionError, match="output is the model itself"):
        optimize(stored, parts, stored.directory)
    with pytest.raises(OptionError, match="margin is a share"):
        optimize(stored, parts, margin=2)
    with pytest.raises(OptionError, match="precision='int8' is not trained by itself"):
        AD("padim", parts, precision="int8")
    with pytest.raises(DataError, match="too few"):
        optimize(stored, write_parts(tmp_path / "few", 8))


def test_a_quantised_model_takes_no_further_images(parts, density, tmp_path):
    plan = replace(density.manifest.plan, precision="int8")
    train(plan, find_training_images(parts), tmp_path / "quick", epochs=None)
    ad = AD(tmp_path / "quick", parts)
    with pytest.raises(OptionError, match="one in int8; optimize takes one in f32"):
        ad.optimize(parts)
    ad.train(review=False)  # begins again, in INT8 as well
    assert load(tmp_path / "quick").manifest.plan.precision == "int8"


def test_images_cannot_be_added_to_it(parts, tmp_path):
    stored = trained_on(parts, tmp_path, "padim")
    plan = replace(stored.manifest.plan, precision="int8")
    manifest = replace(stored.manifest, plan=plan)
    ad = AD(stored.directory)
    ad._choice = replace(ad._choice, stored=replace(stored, manifest=manifest))
    with pytest.raises(OptionError, match="made of all its images at once"):
        ad.add_images(parts)
