"""Drift: against SciPy, with known changes."""

import json

import numpy as np
import pytest
from conftest import write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
pytest.importorskip("scipy", reason="needs the extra 'eval'")

from scipy import stats

from anomaly_ad import AD
from anomaly_ad.errors import DataError, OptionError, PathError
from anomaly_ad.evaluation.drift import compare
from anomaly_ad.methods import registry


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    root = tmp_path_factory.mktemp("drift")
    folder = write_parts(root / "good", 40)
    return AD("dfkde", folder, save_path=root, img_size=(64, 64)).train()


@pytest.fixture(scope="module")
def cross_fitted(tmp_path_factory):
    """Whose unseen scores come from few folds."""
    root = tmp_path_factory.mktemp("cross_fitted")
    folder = write_parts(root / "good", 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.detector_class("dfkde"), "folds", lambda self, count: 5)
        return AD("dfkde", folder, save_path=root, img_size=(64, 64)).train()


def table(path, scores):
    lines = ["path,score,raw_score,threshold,is_anomalous,n_boxes,error"]
    lines += [f"{n}.png,0.5,{score},0.8,False,0," for n, score in enumerate(scores)]
    path.write_text("\n".join(lines) + "\n")
    return path


def same_as_good(model, count, seed=0):
    reference = model.model.good_scores().scores
    return np.random.default_rng(seed).choice(reference, count)


def test_figures_are_those_of_scipy(model, tmp_path, capsys):
    scores = same_as_good(model, 100) + np.linspace(0, 5, 100)
    found = model.drift(table(tmp_path / "p.csv", scores), window=50)
    reference = model.model.good_scores().scores
    for window, some in zip(
        (found.whole, *found.windows), (scores, scores[:50], scores[50:]), strict=True
    ):
        expected = stats.ks_2samp(some, reference)
        assert window.statistic == pytest.approx(expected.statistic)
        assert window.p_value == pytest.approx(expected.pvalue)
        limit = model.model.manifest.calibration.image.limit
        assert window.above == (some > limit).sum() and window.n_images == len(some)
    assert found.n_calibration == 40
    printed = capsys.readouterr().out
    assert "all" in printed and "50 to 99" in printed
    assert json.loads(found.to_json())["whole"]["n_images"] == 100


def test_a_change_is_seen_where_it_begins(model, tmp_path):
    good = same_as_good(model, 160)
    changed = np.concatenate([good[:120], good[120:] + 3 * np.std(good)])
    found = model.drift(table(tmp_path / "p.csv", changed), window=40)
    assert [window.first for window in found.drifting] == [120]
    assert found.drifting[0].direction == "higher"
    assert "120 to 159" in str(found) and "DRIFT, higher" in str(found)
    calm = model.drift(table(tmp_path / "p.csv", good), window=40)
    assert calm.drifting == () and "DRIFT" not in str(calm)


def test_a_tolerance_is_for_lower_scores_only():
    reference = stats.norm.ppf(np.linspace(0.005, 0.995, 100))
    many = stats.norm.ppf(np.linspace(0.0005, 0.9995, 1000))
    lower, higher = (compare(many + shift, reference, 0.1) for shift in (-0.2, 0.2))
    assert (lower.direction, higher.direction) == ("lower", "higher")
    assert lower.statistic == pytest.approx(higher.statistic, abs=0.01)
    assert lower.p_change > 0.99 and higher.p_change == pytest.approx(higher.p_value, rel=0.3)
    assert compare(many - 1, reference, 0.1).p_change < 1e-6
    exact = compare(many - 0.2, reference)
    assert exact.p_change == exact.p_value


@pytest.mark.slow
def test_lower_scores_come_with_a_word_of_caution_where_the_training_was_the_reference(
    cross_fitted, tmp_path
):
    model = cross_fitted
    reference = model.model.good_scores().scores
    # The lowest 12 of 40 three times: KS 0.26, which is significant, but 0.16 is not.
    ascending = np.sort(reference)
    lower = np.tile(np.r_[ascending[:12], ascending[:12], ascending], 50)
    found = model.drift(table(tmp_path / "p.csv", lower), window=len(lower))
    assert found.cross_fitted and found.whole.direction == "lower" and not found.drifting
    assert found.whole.p_value < 0.05 and "not drift here" in str(found)
    far = model.drift(table(tmp_path / "far.csv", reference - 10), window=20)
    assert [window.direction for window in far.drifting] == ["lower", "lower"]


@pytest.mark.slow
def test_a_few_added_images_do_not_change_what_the_reference_is(model, cross_fitted, tmp_path):
    """Each is scored by a fit on nearly all; the first ones stay what they were."""
    more = write_parts(tmp_path / "more", 3, first=300)
    for ad, crossed in ((model, False), (cross_fitted, True)):
        own = AD(ad.model.directory, save_path=tmp_path / str(crossed)).add_images(more)
        assert own.model.good_scores(of_training=True).cross_fitted is crossed
        assert len(own.model.good_scores(of_training=True)) == 43


@pytest.mark.slow
def test_new_good_images_are_an_exact_reference(cross_fitted, tmp_path):
    new = write_parts(tmp_path / "new", 20, first=400)
    own = AD(cross_fitted.model.directory, save_path=tmp_path / "own")
    own.calibrate(good=new)
    scores = own.model.good_scores().scores
    found = own.drift(table(tmp_path / "p.csv", np.r_[scores, scores - 0.1]), window=20)
    assert not found.cross_fitted
    assert all(w.p_change == w.p_value for w in (found.whole, *found.windows))
    assert "not drift here" not in str(found)


def test_the_last_window_takes_what_is_left(model, tmp_path):
    found = model.drift(table(tmp_path / "p.csv", same_as_good(model, 95)), window=30)
    assert [w.n_images for w in found.windows] == [30, 30, 35]
    default = model.drift(table(tmp_path / "p.csv", same_as_good(model, 1000)))
    assert [w.n_images for w in default.windows] == [100] * 10
    few = model.drift(table(tmp_path / "p.csv", same_as_good(model, 12)))
    assert [w.n_images for w in few.windows] == [12]


def test_records_of_other_models_and_errors_are_left_out(model, tmp_path):
    folder = write_parts(tmp_path / "new", 14, first=100)
    (folder / "torn.png").write_bytes(b"no image")
    model.predict(folder, tmp_path / "out")
    record = tmp_path / "out" / "predictions.jsonl"
    other = json.dumps({"model": "0" * 64, "raw_score": 3.0, "time": "x"})
    record.write_text(record.read_text() + other + "\n")
    found = model.drift(record)
    assert found.whole.n_images == 14 and found.n_left_out == 2
    assert f"all, from {found.whole.begins}" in str(found) and "2 lines with errors" in str(found)
    from_csv = model.drift(tmp_path / "out" / "predictions.csv")
    assert from_csv.whole.statistic == found.whole.statistic and from_csv.n_left_out == 1


def test_records_outlive_a_calibration(model, tmp_path):
    own = AD(model.model.directory, save_path=tmp_path / "own")
    folder = write_parts(tmp_path / "new", 12, first=100)
    own.predict(folder, tmp_path / "out")
    own.calibrate(another_day=folder)
    assert own.drift(tmp_path / "out" / "predictions.jsonl").whole.n_images == 12


def test_files_that_cannot_be_compared(model, tmp_path):
    with pytest.raises(PathError, match="no such file"):
        model.drift(tmp_path / "none.csv")
    with pytest.raises(DataError, match="holds 3 predictions"):
        model.drift(table(tmp_path / "p.csv", [1.0, 2.0, float("nan"), 3.0]))
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column raw_score"):
        model.drift(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("raw_score\n" + "1" * 200_000 + "\n")
    with pytest.raises(DataError, match="not a table of predictions"):
        model.drift(tmp_path / "x.csv")
    assert model.drift(table(tmp_path / "p.csv", [1.0] * 20), window=np.int64(10)).windows
    for window in (3, 20.5, True):
        with pytest.raises(OptionError, match="window is a number of images"):
            model.drift(table(tmp_path / "p.csv", [1.0] * 20), window=window)
