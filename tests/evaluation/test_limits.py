"""Limits from good images, labelled ones and by hand; they are recorded, and scores follow."""

import shutil

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD
from anomaly_ad.cli import other as cli
from anomaly_ad.errors import DataError, ModelError, OptionError
from anomaly_ad.model import GoodScores


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the trained model that a test may change."""
    shutil.copytree(trained, tmp_path / "model")
    return AD(tmp_path / "model")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    write_parts(root / "new", 40, first=500)
    write_parts(root / "labelled" / "good", 6, first=600)
    write_parts(root / "labelled" / "bar", 5, first=700, defect=True)
    write_parts(root / "defects", 4, first=800, defect=True)
    for seed in range(12):  # another day: the lamp is brighter
        brighter = np.clip(draw_part(900 + seed).astype(int) + 25, 0, 255).astype(np.uint8)
        write_image(root / "tuesday" / f"{seed}.png", brighter)
    return root


def raw_scores(ad, folder):
    return np.array([p.raw_score for p in ad.predict(folder, save=False)])


def test_a_rate_from_the_images_of_the_training(model):
    scores = model.model.good_scores().scores
    before = model.model.manifest
    model.calibrate(false_alarm_rate=0.34)
    limit = AD(model.model.directory).model.manifest.calibration.image
    assert len(scores) == 5 and limit.limit == pytest.approx(np.sort(scores)[3])  # ceil(6 * 0.66)
    assert limit.asked_rate == 0.34 and limit.n_images == len(scores)
    assert model.model.manifest.calibration.record["source"] == "the training"
    assert model.model.manifest.parity == before.parity
    model.model.verify()


def test_too_few_images_for_a_rate_are_said(model, capsys):
    model.calibrate(false_alarm_rate=0.01)
    assert "A rate of 1.0% needs at least 99 good images." in capsys.readouterr().out


def test_a_limit_from_new_good_images(model, parts, capsys):
    model.calibrate(good=parts / "new", false_alarm_rate=0.1)
    scores = raw_scores(model, parts / "new")
    calibration = model.model.manifest.calibration
    assert calibration.image.limit == pytest.approx(np.sort(scores)[36], rel=1e-5)  # ceil(41 * 0.9)
    assert calibration.record["n_good"] == 40 and calibration.record["by"] == "good images"
    assert calibration.record["source"] == str(parts / "new")
    assert calibration.map.n_images == 40
    np.testing.assert_allclose(model.model.good_scores().scores, scores, rtol=1e-5)
    assert "40 good images" in capsys.readouterr().out


def test_what_calibrate_passes_over_is_named(model, parts, tmp_path, capsys):
    shutil.copytree(parts / "new", tmp_path / "new" / "good")
    (tmp_path / "new" / "good" / "a.heic").touch()
    model.calibrate(good=tmp_path / "new")
    assert "Not used: 1 file in unsupported formats (a.heic)." in capsys.readouterr().out
    shutil.copytree(parts / "labelled", tmp_path / "labelled")
    (tmp_path / "labelled" / "bar" / "b.gif").touch()
    model.calibrate(defective=tmp_path / "labelled")
    assert "Not used: 1 file in unsupported formats (bar/b.gif)." in capsys.readouterr().out


def test_images_that_training_has_seen_are_left_out(model, dataset, parts, tmp_path, capsys):
    seen = sorted((dataset / "train" / "good").iterdir())
    fresh = sorted((parts / "new").iterdir())
    model.calibrate(good=[*seen[:3], *fresh])
    assert model.model.manifest.calibration.record["left_out"] == 3
    assert "3 images were left out: seen in training, or copies" in capsys.readouterr().out
    with pytest.raises(DataError, match="All of these were used in training"):
        model.calibrate(good=seen)
    with pytest.raises(DataError, match="All of these defective images were used in training"):
        model.calibrate(defective=seen, labels=[1] * len(seen))


def test_the_limit_of_best_f1_beside_the_one_of_good_images(model, parts, capsys):
    model.calibrate(defective=parts / "labelled")
    printed = capsys.readouterr().out
    record = model.model.manifest.calibration.record
    assert (record["n_good"], record["n_defective"]) == (6, 5)
    assert record["by"] == "best F1" and record["false_alarms"] == record["misses"] == 0
    good, bad = (raw_scores(model, parts / "labelled" / kind) for kind in ("good", "bar"))
    limit = model.model.manifest.calibration.image.limit
    assert good.max() < limit < bad.min()
    assert limit == pytest.approx((good.max() + bad.min()) / 2, rel=1e-5)
    assert record["good_only"]["limit"] < limit and "stated_rate" in record["good_only"]
    assert "Limit by best F1" in printed and "Limit from good images alone" in printed
    verdicts = [p.is_anomalous for p in model.predict(parts / "labelled", save=False)]
    assert verdicts == [True] * 5 + [False] * 6
    assert model.evaluate(parts / "labelled").f1.value == 1


def test_defective_images_alone_are_compared_with_the_good_ones_of_the_training(model, parts):
    model.calibrate(defective=parts / "defects")
    record = model.model.manifest.calibration.record
    assert record["n_defective"] == 4 and record["n_good"] == len(model.model.good_scores().scores)
    assert "of the calibration" in record["good_from"] and "all are defective" in record["layout"]


def test_cost_decides_between_false_alarms_and_misses(model, parts):
    """Defects that overlap with good parts: what is dear is avoided."""
    files = sorted((parts / "new").iterdir())
    order = raw_scores(model, files).argsort()
    labels = np.zeros(40, int)
    labels[order[-12::2]] = 1  # every other one of those with the highest scores
    records = []
    for ratio in (0.01, 100):
        model.calibrate(defective=files, labels=labels, cost_ratio=ratio)
        records.append(model.model.manifest.calibration.record)
    cheap, dear = records
    assert cheap["false_alarms"] > dear["false_alarms"] == 0
    assert cheap["misses"] < dear["misses"]
    assert dear["cost_ratio"] == 100 and dear["by"] == "least cost"


def ranked(model, parts):
    """Good images that training has not seen, from the lowest to the highest score."""
    files = sorted((parts / "new").iterdir())
    scores = raw_scores(model, files)
    return [files[n] for n in scores.argsort()], np.sort(scores)


ADVICE = "The model hardly tells these defects from good parts. Try another method"


@pytest.mark.parametrize("cost_ratio", [None, 0.01])
def test_defects_that_cannot_be_told_get_the_best_limit_above_typical_good_parts(
    model, parts, capsys, cost_ratio
):
    files, scores = ranked(model, parts)
    median = model.model.manifest.calibration.image.median
    labels = np.arange(40) % 2 == 0  # the lowest score is a defect's
    assert median < scores[-2]
    model.calibrate(defective=files, labels=labels, cost_ratio=cost_ratio)
    calibration = AD(model.model.directory).model.manifest.calibration
    limit, record = calibration.image.limit, calibration.record
    assert median < limit and calibration.map.median < calibration.map.limit

    def worth(at):
        alarms, found = (int((scores[some] > at).sum()) for some in (~labels, labels))
        if cost_ratio is None:
            return 2 * found / (found + alarms + 20)
        return found - cost_ratio * alarms

    # As good as any limit above the median, tried one by one.
    assert worth(limit) == max(worth(x) for x in [median, *scores[scores > median]]) > 0
    assert record["too_low"]["limit"] < median
    assert record["too_low"]["false_alarms"] >= 19 and record["too_low"]["misses"] == 0
    printed = capsys.readouterr().out
    name = "best F1" if cost_ratio is None else "least cost"
    assert f"It is the best one allowed. The {name} of all is at" in printed
    assert f"but half of all good parts exceed {median:.6g}: such a limit is too low." in printed
    assert ADVICE in printed and "a larger img_size, more good images" in printed
    cli.info(model.model.directory)
    assert f"the {name} of all, at" in capsys.readouterr().out


@pytest.mark.parametrize(("count", "cost_ratio"), [(3, None), (1, None), (1, 1e8), (1, 1e-8)])
def test_where_no_limit_finds_a_defect_it_is_that_of_good_images(
    model, parts, capsys, count, cost_ratio
):
    """All defective images score below the good ones."""
    files, _ = ranked(model, parts)
    alone = model.model.good_scores().calibration(0.01).image
    files = [*files[:count], *files[35:]]
    labels = [1] * count + [0] * 5
    model.calibrate(defective=files, labels=labels, cost_ratio=cost_ratio)
    calibration = model.model.manifest.calibration
    record = calibration.record
    assert (record["false_alarms"], record["misses"]) == (0, count)
    assert calibration.image.limit >= alone.limit > calibration.image.median
    assert ADVICE in capsys.readouterr().out
    model.calibrate(false_alarm_rate=0.01)  # as it was
    assert model.model.manifest.calibration.image == alone


def test_a_limit_as_good_that_is_above_typical_good_parts_is_taken_without_a_word(
    model, parts, capsys
):
    """Labelled good images score far below those of the calibration."""
    files, scores = ranked(model, parts)
    low, high = scores[3], scores[36]
    median = low + 0.9 * (high - low)  # above the middle between good and defective
    good = GoodScores(np.array([median - 1, median, high]), np.arange(3.0), digests=("a", "b", "c"))
    model.model.with_limits(good.calibration(0.3), model.model.directory, good)
    ad = AD(model.model.directory)
    ad.calibrate(defective=[*files[:4], *files[36:]], labels=[0] * 4 + [1] * 4)
    calibration = ad.model.manifest.calibration
    assert median < calibration.image.limit < high
    assert calibration.record["misses"] == calibration.record["false_alarms"] == 0
    assert "too_low" not in calibration.record and ADVICE not in capsys.readouterr().out


def test_calibrate_shows_other_rates_and_what_they_do_with_labelled_images(model, parts, capsys):
    model.calibrate(good=parts / "new", false_alarm_rate=0.1)
    printed = capsys.readouterr().out
    source = f"anomaly-ad calibrate {model.model.directory} --good {parts / 'new'}"
    assert f"Limits for other false alarm rates ({source} --false-alarm-rate RATE):" in printed
    limit = model.model.manifest.calibration.image.limit
    assert f"   10.0%  limit {limit:.6g}" in printed and printed.count("<- this model") == 1
    assert "    1.0%  limit" in printed and "needs 99 good images" in printed
    assert "rejected" not in printed.partition("Limits for")[2]
    model.calibrate(defective=parts / "labelled")
    printed = capsys.readouterr().out
    assert "of 6 rejected, 5 of 5 found" in printed and "this model" not in printed
    assert f"{source} --false" in printed  # the good images are still those of before
    assert "would find" not in printed  # no limit finds more than all


def test_a_limit_for_a_rate_that_finds_more_is_named(model, parts, capsys):
    """Unless a ratio of costs has said what is better."""
    files, _ = ranked(model, parts)
    model.calibrate(good=files[:20], false_alarm_rate=0.1)
    labels = np.zeros(40, int)
    labels[[25, 39]] = 1  # best F1 finds the second only
    model.calibrate(defective=files, labels=labels)
    assert model.model.manifest.calibration.record["misses"] == 1
    assert "would find 2 of 2" in capsys.readouterr().out
    model.calibrate(defective=files, labels=labels, cost_ratio=1)
    assert "would find" not in capsys.readouterr().out


def test_a_limit_by_hand_moves_scores_and_the_limit_of_maps(model, parts):
    before = model.model.manifest.calibration
    one = sorted((parts / "defects").iterdir())[0]
    raw = model.predict(one, save=False).raw_score
    model.calibrate(limit=raw)
    after = model.model.manifest.calibration
    prediction = model.predict(one, save=False)
    assert prediction.raw_score == raw and prediction.score == pytest.approx(0.8)
    assert not prediction.is_anomalous
    factor = (raw - before.image.median) / (before.image.limit - before.image.median)
    moved = (after.map.limit - before.map.median) / (before.map.limit - before.map.median)
    assert moved == pytest.approx(factor)
    assert after.record["by"] == "by hand"
    scores = model.model.good_scores().scores
    assert after.image.stated_rate == pytest.approx(1 / (len(scores) + 1))


def test_a_limit_by_hand_is_promised_nothing(model, parts, tmp_path, capsys):
    """Nowhere is a rate stated for it: one function words the promise."""
    limit = model.model.manifest.calibration.image.limit
    model.calibrate(limit=1.01 * limit, another_day=parts / "tuesday")
    calibration = model.model.manifest.calibration
    assert calibration.stated_rate is None
    assert calibration.promise == "no false alarm rate is promised for it (by hand)"
    model.predict(parts / "new", tmp_path / "out")
    print(model.drift(tmp_path / "out" / "predictions.csv"))
    model.evaluate(parts / "labelled")
    cli.info(model.model.directory)
    model.report(parts / "labelled", tmp_path / "report.html")
    printed = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert printed.count("no false alarm rate is promised for it (by hand)") >= 3
    assert "no false alarm rate is promised for it (by hand)" in page
    assert "at most" not in printed and "stated" not in printed and "at most" not in page


@pytest.mark.parametrize("names", [("reference", "scratch"), ("golden", "ng")])
def test_where_nothing_is_good_though_a_name_reads_like_it(model, parts, tmp_path, capsys, names):
    shutil.copytree(parts / "labelled" / "good", tmp_path / "set" / names[0])
    shutil.copytree(parts / "labelled" / "bar", tmp_path / "set" / names[1])
    limit = model.model.manifest.calibration.image.limit
    found = model.evaluate(tmp_path / "set")
    assert any(f"{names[0]!r} may mean good" in warning for warning in found.warnings)
    printed = capsys.readouterr().out
    assert f"Warning: None of these images is labelled good, but {names[0]!r}" in printed
    with pytest.raises(DataError, match=f"{names[0]!r} may mean good"):
        model.calibrate(defective=tmp_path / "set")
    assert model.model.manifest.calibration.image.limit == limit


def test_another_day_is_counted_and_the_limit_stays(model, parts, capsys):
    limit = model.model.manifest.calibration.image.limit
    model.calibrate(another_day=parts / "tuesday")
    calibration = model.model.manifest.calibration
    entry = calibration.record["another_day"]
    rejected = int((raw_scores(model, parts / "tuesday") > limit).sum())
    assert calibration.image.limit == limit
    assert (entry["n_good"], entry["rejected"]) == (12, rejected)
    assert entry["low"] <= entry["rate"] <= entry["high"]
    printed = capsys.readouterr().out
    assert f"{rejected} of 12 good images" in printed and "of the calibration" in printed
    assert rejected > 6 and "differ from those of the calibration" in printed


def test_a_rate_alone_is_from_the_training_again(model, parts):
    plain = model.calibrate(false_alarm_rate=0.3).model.manifest.calibration.image
    model.calibrate(good=parts / "new")
    model.calibrate(false_alarm_rate=0.3)
    assert model.model.manifest.calibration.image == plain
    assert len(model.model.good_scores().scores) == 5


def test_copies_tell_nothing_new(model, parts, tmp_path):
    for n, file in enumerate(sorted((parts / "new").iterdir())[:5]):
        for copy in range(4):
            shutil.copy(file, tmp_path / f"{n}-{copy}.png")
    model.calibrate(good=[*sorted(tmp_path.glob("*.png"))])
    calibration = model.model.manifest.calibration
    assert calibration.image.n_images == 5 and calibration.record["left_out"] == 15


@pytest.mark.slow
def test_in_another_arithmetic_the_limit_keeps_its_margin(parts, tmp_path):
    options = {"img_size": (128, 128), "precision": "bf16", "save_path": tmp_path}
    ad = AD("dfkde", parts / "new", **options).train()
    before = ad.model.manifest.calibration.image
    ad.calibrate(false_alarm_rate=before.asked_rate)
    assert ad.model.manifest.calibration.image == before


def test_a_limit_and_another_day_in_one_call(model, parts):
    model.calibrate(good=parts / "new", another_day=parts / "tuesday")
    record = model.model.manifest.calibration.record
    assert record["by"] == "good images" and record["another_day"]["n_good"] == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "calibrate takes one of"),
        ({"limit": 3.0, "false_alarm_rate": 0.1}, "There can be only one limit"),
        ({"limit": 3.0, "defective": "x"}, "There can be only one limit"),
        ({"labels": [0]}, "takes one of"),
        ({"limit": 3.0, "cost_ratio": 2.0}, "belong to `defective`"),
        ({"false_alarm_rate": 1.5}, "false_alarm_rate"),
        ({"limit": "high"}, "limit is a raw score"),
        ({"limit": True}, "limit is a raw score"),
    ],
)
def test_options_that_do_not_go_together(model, options, message):
    with pytest.raises(OptionError, match=message):
        model.calibrate(**options)


@pytest.mark.parametrize("ratio", [0, -1, "much", float("nan"), True])
def test_a_cost_ratio_that_is_none(model, parts, ratio):
    with pytest.raises(OptionError, match="cost_ratio is what a false alarm costs"):
        model.calibrate(defective=parts / "labelled", cost_ratio=ratio)


@pytest.mark.parametrize("limit", [-1e9, float("nan"), float("inf"), 1e301])
def test_a_limit_below_typical_good_parts_is_refused_and_nothing_is_saved(model, limit):
    digest = model.model.digest
    with pytest.raises(DataError, match=r"not above the score of a typical|finite number"):
        model.calibrate(limit=limit)
    assert AD(model.model.directory).model.digest == digest


def test_images_that_cannot_be_used(model, parts, tmp_path):
    with pytest.raises(DataError, match="no defective images"):
        files = sorted((parts / "new").iterdir())
        model.calibrate(defective=files, labels=[0] * len(files))
    shutil.copytree(parts / "new", tmp_path / "torn")
    (tmp_path / "torn" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"(?s)1 of 41 images cannot be used.*a\.png"):
        model.calibrate(good=tmp_path / "torn")


def test_a_model_that_kept_no_scores_says_what_to_do(model, parts, monkeypatch):
    plain = type(model.model).state
    kept = ("held_out_scores", "held_out_maxima")
    monkeypatch.setattr(
        type(model.model),
        "state",
        lambda stored: {k: v for k, v in plain(stored).items() if k not in kept},
    )
    with pytest.raises(ModelError, match="did not keep the scores"):
        model.calibrate(false_alarm_rate=0.1)
    model.calibrate(good=parts / "new")
    assert len(model.model.good_scores().scores) == 40


def test_another_save_path_leaves_the_model_as_it_was(model, tmp_path):
    digest = model.model.digest
    other = AD(model.model.directory, save_path=tmp_path / "other")
    other.calibrate(false_alarm_rate=0.4)
    assert AD(model.model.directory).model.digest == digest != other.model.digest
    assert other.model.directory == tmp_path / "other" / "model"


@pytest.mark.slow
def test_a_model_without_maps(parts, tmp_path):
    ad = AD("dfkde", parts / "new", save_path=tmp_path, img_size=(64, 64)).train()
    ad.calibrate(defective=parts / "defects")
    assert ad.model.manifest.calibration.map is None
    found = ad.evaluate(parts / "labelled")
    assert found.omitted["pixel_auroc"] == "dfkde has no maps" and found.auroc is not None
    write_parts(tmp_path / "more", 3, first=990)
    ad.add_images(tmp_path / "more")
    assert ad.model.manifest.calibration.record == {}


@pytest.mark.slow
def test_training_goes_on_after_a_calibration(model, dataset, parts):
    model.calibrate(good=parts / "new")
    again = AD(model.model.directory, dataset).train(1)
    assert again.model.manifest.training["continued_from"] == model.model.digest
    assert again.model.manifest.calibration.record == {}
