"""Options searched: on one half of the images, reported on the other, and gone on with."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import draw_part, write_image

from anomaly_ad import AD, DataError, OptionError, OutputError
from anomaly_ad.choosing import tuning
from anomaly_ad.choosing.material import find_material
from anomaly_ad.choosing.merit import Scored
from anomaly_ad.choosing.trying import refuse_interrupted
from anomaly_ad.methods import PRESETS

pytest.importorskip("tensorflow")
optuna = pytest.importorskip("optuna")

SIZE = (64, 64)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    for n in range(16):
        write_image(root / "train" / "good" / f"{n:02d}.png", draw_part(n))
    for n in range(6):
        write_image(root / "test" / "good" / f"{n:02d}.png", draw_part(100 + n))
        write_image(root / "test" / "bar" / f"{n:02d}.png", draw_part(200 + n, defect=True))
    for n in range(3):
        write_image(root / "test" / "other" / f"{n:02d}.png", draw_part(300 + n, defect=True))
    return root


@pytest.fixture(scope="module")
def tuned(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    found = AD.tune(
        parts, "dfkde", trials=3, img_size=SIZE, save=True, save_path=folder, name="part"
    )
    return found, folder


def test_halves_are_stratified_disjoint_and_seeded(parts):
    material = find_material(parts)
    first, second = tuning.halves(material, 0)
    for kind, count in (("good", 6), ("bar", 6), ("other", 3)):
        sizes = sorted(sum(k == kind for _, k in half.tests) for half in (first, second))
        assert sum(sizes) == count and sizes[1] - sizes[0] <= 1
    names = [{source.name for source, _ in half.tests} for half in (first, second)]
    assert not names[0] & names[1]
    assert [s.name for s, _ in tuning.halves(material, 0)[0].tests] == [
        s.name for s, _ in first.tests
    ]
    assert {s.name for s, _ in tuning.halves(material, 1)[0].tests} != names[0]


def test_rendered_defects_go_with_their_image(parts):
    material = find_material(parts / "train")
    first, second = tuning.halves(material, 0)
    paths = [{source.path for source, _ in half.tests} for half in (first, second)]
    assert paths[0] and paths[1] and not paths[0] & paths[1]


def test_too_few_images_to_divide(tmp_path):
    for n in range(12):
        write_image(tmp_path / "good" / f"{n:02d}.png", draw_part(n))
    write_image(tmp_path / "bad" / "1.png", draw_part(50, defect=True))
    with pytest.raises(DataError, match="too few images to tune on"):
        tuning.halves(find_material(tmp_path), 0)


def test_figures_are_of_the_half_that_the_search_has_not_seen(tuned, parts):
    found, _ = tuned
    _, unseen = tuning.halves(find_material(parts), 0)
    n_good = sum(kind == "good" for _, kind in unseen.tests)
    for each in (found.default, found.best):
        assert (each.n_good, each.n_defective) == (n_good, len(unseen.tests) - n_good)
    assert found.gain.value == pytest.approx(found.best.merit - found.default.merit)
    assert found.is_better == (found.gain.low > 0)


def test_the_default_is_tried_first(tuned):
    found, folder = tuned
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'part-tuning.db'}")
    assert len(study.trials) == found.n_trials == 3
    defaults = {o.name: o.default for o in PRESETS["dfkde"].options if o.is_searched}
    assert study.trials[0].user_attrs["options"] == defaults


def test_the_saved_model_says_why(tuned):
    found, folder = tuned
    manifest = AD(folder / "part").model.manifest
    reason = manifest.training["chosen"]
    assert reason["by"] == "tune" and reason["n_trials"] == 3 and len(reason["trials"]) == 3
    assert reason["why"] == found.recommendation == str(found).splitlines()[-1]
    for name, value in found.options.items():
        assert manifest.plan.parameters.get(name, value) == value
    assert json.loads(found.to_json())["method"] == "dfkde"


def test_it_goes_on_where_it_ended(tuned, parts):
    _, folder = tuned
    again = AD.tune(parts, "dfkde", trials=4, img_size=SIZE, save_path=folder, name="part")
    assert again.n_trials == 4
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{folder / 'part-tuning.db'}")
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]


def test_another_search_in_the_same_study_is_refused(tuned, parts):
    _, folder = tuned
    with pytest.raises(OptionError, match="of another search"):
        AD.tune(parts, "padim", trials=4, img_size=SIZE, save_path=folder, name="part")


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("ensemble", {}, "no options that can be searched"),
        ("nosuch", {}, "no detector named"),
        ("padim", {"trials": 0}, "whole number from 1"),
        ("padim", {"budget": -1}, "above 0"),
        ("padim", {"budget": "10m"}, "a time in seconds"),
        ("padim", {"budget": float("nan")}, "above 0"),
        ("padim", {"objective": "beauty"}, "quality, latency, both"),
    ],
)
def test_what_cannot_be_used_is_refused(method, given, told, parts, tmp_path):
    with pytest.raises(OptionError, match=told):
        AD.tune(parts, method, save_path=tmp_path, **given)


def test_a_file_that_is_no_study_is_refused(parts, tmp_path):
    (tmp_path / "study.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(OutputError, match="cannot be used as a study"):
        AD.tune(parts, "dfkde", img_size=SIZE, storage=tmp_path / "study.db")


def test_one_process_at_a_time(parts, tmp_path):
    from filelock import FileLock

    with (
        FileLock(tmp_path / "study.db.lock"),
        pytest.raises(OutputError, match="Another process works on the study"),
    ):
        AD.tune(parts, "dfkde", img_size=SIZE, storage=tmp_path / "study.db")


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if any(p.options)])
def test_every_default_lies_in_what_is_searched(name):
    for option in PRESETS[name].options:
        if not option.is_searched:
            continue
        if hasattr(option, "low"):
            assert option.low <= option.search[0] < option.search[1] <= option.high
            assert option.search[0] <= option.default <= option.search[1]
        else:
            default = option.default
            assert (tuple(default) if isinstance(default, list) else default) in option.search
            for value in option.search:
                option.check(list(value) if isinstance(default, list) else value)


def test_suggested_values_can_be_used():
    for preset in PRESETS.values():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for option in preset.options:
            if option.is_searched:
                for _ in range(5):
                    value = option.suggest(study.ask())
                    assert option.check(value) == value


def test_interrupted_it_keeps_what_is_done(parts, tmp_path, monkeypatch):
    calls = []
    train = tuning.train

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*args, **kwargs)

    monkeypatch.setattr(tuning, "train", interrupted)
    found = AD.tune(parts, "dfkde", trials=4, img_size=SIZE, storage=tmp_path / "s.db")
    assert found.n_trials == 1 and "keep the default" in found.recommendation
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path / 's.db'}")
    states = [trial.state.name for trial in study.trials]
    assert states == ["COMPLETE", "FAIL", "WAITING"]
    assert study.trials[2].user_attrs["again"] == 1


@pytest.fixture
def faked(tmp_path, monkeypatch):
    """A search whose models are made up from their options: what it does with them is tested."""
    parts = tmp_path / "parts"
    for n in range(45):
        write_image(parts / "train" / "good" / f"{n:02d}.png", draw_part(n))
    for n in range(8):
        write_image(parts / "test" / "good" / f"{n:02d}.png", draw_part(100 + n))
        write_image(parts / "test" / "bar" / f"{n:02d}.png", draw_part(200 + n, defect=True))

    def made(self, options, part=None, epochs=None):
        noise = options.get("noise", 0.5)
        good, defective = (
            np.array([kind == "good" for _, kind in self.material.tests]),
            np.array([kind != "good" for _, kind in self.material.tests]),
        )
        limit = 1.0
        scores = np.linspace(0.0, 0.9, int(good.sum()))
        # The smaller the noise, the more are found.
        found = np.linspace(0.1, 2.5, int(defective.sum())) / (0.5 + noise)
        return SimpleNamespace(directory=tmp_path), Scored(scores, found, limit)

    times = iter([20.0] * 1000)
    monkeypatch.setattr(tuning._Run, "_trained", made)
    monkeypatch.setattr(tuning.probe, "measure", lambda *_: SimpleNamespace(image_ms=next(times)))

    def run(**given):
        return AD.tune(
            parts,
            "simplenet",
            img_size=SIZE,
            storage=tmp_path / "f.db",
            save_path=tmp_path,
            **given,
        )

    return run


def test_trials_that_begin_badly_end_early(faked, tmp_path):
    found = faked(trials=15)
    assert found.n_trials == 15 and found.n_pruned > 0
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path / 'f.db'}")
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert len(pruned) == found.n_pruned and all("merit" not in t.user_attrs for t in pruned)
    assert found.best.merit >= found.default.merit


def test_the_same_seed_searches_the_same_whether_cut_or_not(faked, tmp_path):
    faked(trials=6)
    url = f"sqlite:///{tmp_path / 'f.db'}"
    first = [t.params for t in optuna.load_study(study_name="tune", storage=url).trials]
    (tmp_path / "f.db").unlink()
    for count in (2, 4, 6):
        faked(trials=count)
    again = [t.params for t in optuna.load_study(study_name="tune", storage=url).trials]
    assert first == again and len(first) == 6


def test_what_none_beats_in_both_is_listed(faked):
    found = faked(trials=6, objective="both")
    assert found.front and all({"merit", "image_ms", "options"} == set(e) for e in found.front)
    merits = [each["merit"] for each in found.front]
    assert merits == sorted(merits, reverse=True)
    assert "None is both better and faster" in str(found)


def test_latency_is_not_bought_with_defects_that_are_missed(faked):
    found = faked(trials=6, objective="latency")
    assert not found.is_better  # all take equally long
    assert "keep the default" in found.recommendation


def test_a_training_that_was_interrupted_is_not_a_trial():
    stored = SimpleNamespace(manifest=SimpleNamespace(training={"is_interrupted": True}))
    with pytest.raises(KeyboardInterrupt):
        refuse_interrupted(stored)


def test_a_default_that_was_cut_off_stays_the_default(tmp_path, monkeypatch, faked):
    made = tuning._Run._trained
    calls = []

    def cut(self, *given, **more):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return made(self, *given, **more)

    monkeypatch.setattr(tuning._Run, "_trained", cut)
    with pytest.raises(KeyboardInterrupt):
        faked(trials=3)
    faked(trials=3)
    study = optuna.load_study(study_name="tune", storage=f"sqlite:///{tmp_path / 'f.db'}")
    first, second = study.trials[:2]
    assert first.state.name == "FAIL" and second.user_attrs["is_default"]
    defaults = {o.name: o.default for o in PRESETS["simplenet"].options if o.is_searched}
    assert second.user_attrs["options"] == defaults


SCRIPT = """
import sys
from anomaly_ad.choosing import tune
print(tune(sys.argv[1], "dfkde", trials=8, storage=sys.argv[2], options={"img_size": (64, 64)}))
"""


@pytest.mark.slow
def test_killed_and_gone_on_with_no_trial_is_lost_or_made_twice(parts, tmp_path):
    storage = tmp_path / "s.db"
    url = f"sqlite:///{storage}"
    command = [sys.executable, "-c", SCRIPT, str(parts), str(storage)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    best = []
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        if not storage.is_file():
            continue
        try:
            study = optuna.load_study(study_name="tune", storage=url)
            trials = study.trials
        except Exception:
            continue
        best = [trial.value for trial in trials if trial.state.name == "COMPLETE"]
        if len(best) >= 2 and trials[-1].state.name == "RUNNING":
            break
    process.kill()
    process.wait()
    assert len(best) >= 2
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "8 trials" in done.stdout
    study = optuna.load_study(study_name="tune", storage=url)
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert len(complete) == 8
    options = [json.dumps(trial.user_attrs["options"], sort_keys=True) for trial in complete]
    assert len(set(options)) == 8
    assert study.best_value >= max(best)
    cut = [trial for trial in study.trials if trial.state.name == "FAIL"]
    assert len(cut) == 1
    (again,) = (t for t in study.trials if t.user_attrs.get("again") == cut[0].number)
    assert again.state.name == "COMPLETE" and again.params == cut[0].params
    assert np.isfinite(study.best_value)
