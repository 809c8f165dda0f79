import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import pytest
from conftest import SIDE, draw_part, write_image, write_parts
from conftest import run_command as run

from anomaly_ad import AD, __version__
from anomaly_ad.inspection.records import CSV, JSONL, read_records
from anomaly_ad.methods.quiet import without_alarms
from anomaly_ad.methods.registry import PRESETS
from anomaly_ad.model.store import load


@pytest.fixture
def ad(trained):
    return AD(trained)


COMMAND = [sys.executable, "-m", "anomaly_ad"]


def test_version_and_help_load_nothing_large():
    code = "import sys\nfrom anomaly_ad.cli import app\ntry: app()\nfinally: print(*sys.modules)"
    for option, expected in (("--version", __version__), ("--help", "test-img")):
        done = subprocess.run(
            [sys.executable, "-c", code, option], capture_output=True, text=True, check=True
        )
        assert expected in done.stdout
        assert not {"numpy", "cv2", "openvino", "tqdm", "rich"} & set(done.stdout.split())


def test_every_command_has_help():
    out, _ = run("--help")
    for command in ("train", "predict", "test-img", "info", "sample", "detectors"):
        assert command in out
        assert "--help" in run(command, "--help")[0]


@pytest.mark.slow
def test_train_prints_the_model_and_says_the_rest_on_stderr(tmp_path):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    folder = write_parts(tmp_path / "parts", 12)
    options = "--epochs 1 --img-size 48 32 --patch-size 12 --seed 3 --colour --precision bf16"
    out, err = run(
        *("train", folder, "--detector", "AD1", "--save-path", tmp_path, *options.split()),
        *("--false-alarm-rate", "0.2", "--fit", "pad", "--option", "code_channels=2"),
    )
    assert out == f"{tmp_path / 'model'}\n"
    assert "12 images of good parts" in err and "The decision limit" in err
    assert "Limits for other false alarm rates" in err
    assert re.search("20.0%  limit .* <- this model", err)
    plan = load(tmp_path / "model").manifest.plan
    assert plan.framing.shape == (48, 32, 3) and plan.patch_size == 12 and plan.seed == 3
    assert plan.parameters["code_channels"] == 2 and plan.precision == "bf16"
    assert plan.false_alarm_rate == 0.2 and plan.framing.fit == "pad"


@pytest.mark.slow
def test_train_takes_padim_and_says_nothing_that_worries(tmp_path):
    """As a newcomer runs it: no word of graphics cards, nothing of TensorFlow's start."""
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    folder = write_parts(tmp_path / "parts", 12)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("TF_", "KERAS"))}
    for command in (
        ["train", folder, "--img-size", "64", "64", "--output", tmp_path],
        [
            "train",
            folder,
            "--detector",
            "AD1",
            "--epochs",
            "2",
            "--output",
            tmp_path,
            "--name",
            "b",
        ],
        ["check", folder, "--false-alarm-rate", "0.1"],
        ["add-images", tmp_path / "model", write_parts(tmp_path / "more", 3, first=50)],
    ):
        done = subprocess.run(
            [*COMMAND, *map(str, command)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        words = r"(?i)cuda|cuinit|absl|E0000|W0000|I0000|oneDNN|warning|error|tensorrt|rebuild"
        # But for what the command itself says of few images.
        others = [line for line in done.stderr.splitlines() if line[:9] != "Warning: "]
        assert not re.search(words, "\n".join(others)), done.stderr
    assert load(tmp_path / "model").manifest.plan.method == "padim"


def test_other_lines_of_tensorflows_start_are_passed_on(capfd):
    with without_alarms():
        os.write(2, b"E0000 cuda_platform.cc:52] failed call to cuInit: INTERNAL\n")
        os.write(2, b"illegal instruction\n")
        print("of Python", file=sys.stderr)
    assert sorted(capfd.readouterr().err.splitlines()) == ["illegal instruction", "of Python"]
    with pytest.raises(ImportError), without_alarms():
        os.write(2, b"why it cannot be imported\n")
        raise ImportError
    assert capfd.readouterr().err == "why it cannot be imported\n"


@pytest.mark.slow
def test_train_says_what_it_replaces(tmp_path, dataset):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    small = ("--img-size", "64", "64", "--output", tmp_path)
    _, err = run("train", dataset, *small)
    assert "replaces" not in err
    day = load(tmp_path / "model").manifest.created[:10]
    _, err = run("train", dataset, "--detector", "dfkde", *small)
    assert f"replaces the previous model: padim, trained {day} on 24 images" in err
    out, err = run("train", dataset, "--name", "nut", *small)
    assert out == f"{tmp_path / 'nut'}\n" and "replaces" not in err
    assert load(tmp_path / "model").manifest.plan.method == "dfkde"
    (tmp_path / "nut" / "manifest.json").write_text("{")
    _, err = run("train", dataset, "--name", "nut", *small)
    assert "replaces the previous model: one that cannot be read" in err


def test_an_empty_path_is_refused(trained, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(dataset)
    for arguments in (
        ("predict", trained, ""),
        ("predict", trained, "a.png", ""),
        ("predict", "", dataset),
        ("predict", trained, dataset, "--output", ""),
        ("train", ""),
        ("evaluate", trained, ""),
        ("report", trained, ""),
        ("check", ""),
        ("calibrate", trained, "--good", ""),
    ):
        _, err = run(*arguments, code=2)
        assert "the path is empty; '.' is the current folder" in err, arguments


def test_a_folder_of_models_suggests_them(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "nut" / "model")
    _, err = run("predict", tmp_path / "nut", tmp_path, code=1)
    assert f"Did you mean {tmp_path / 'nut' / 'model'}?" in err


def test_info_says_in_words_what_calibrate_did(trained, dataset, tmp_path):
    model = shutil.copytree(trained, tmp_path / "model")
    run("calibrate", model, "--defective", dataset / "test")
    run("calibrate", model, "--another-day", write_parts(tmp_path / "day", 3, first=70))
    out, _ = run("info", model)
    line = next(line for line in out.splitlines() if line.startswith("calibrated"))
    assert re.search(r"by best F1; .*test; 4 good and 4 defective images; \d+ false alarms", line)
    assert "the limit from good images alone" in line
    assert re.search(r"another day +\d of 3 good images of .*day are rejected \(", out)
    assert "{" not in out and "digests" not in out


def test_short_help_and_completion():
    assert run("-h")[0] == run("--help")[0]
    assert run("train", "-h")[0] == run("train", "--help")[0]
    assert "--install-completion" in run("-h")[0]


def test_a_method_tells_its_options():
    out, _ = run("detectors", "padim")
    assert re.search(
        r"^prior +40.0 +a number of images from 0 to 1e\+06 +weight of the covariance", out, re.M
    )
    assert "stage4" in out and "a whole number from 1 to 1024" in out
    for name, preset in PRESETS.items():
        told = run("detectors", name)[0]
        for option in preset.options:
            assert option.meaning in told and option.valid in told
            assert option.check(option.default) == option.default
    assert "one pass, about 0.4 min for 200 images" in out
    assert "images can be added later; takes no tiles" in out
    told, _ = run("detectors", "AD1")
    assert "up to 75 epochs" in told and "images cannot be added later; takes tiles" in told
    _, err = run("detectors", "paddim", code=2)
    assert "There is no detector named 'paddim'" in err
    facts = json.loads(run("detectors", "dfkde", "--json")[0])
    assert facts["dfkde"]["options"][0]["name"] == "backbone"


def test_what_is_passed_over_is_said_in_one_line(trained, tmp_path):
    folder = write_parts(tmp_path / "in", 2)
    (folder / "a.heic").touch()
    _, err = run("predict", trained, folder, "--no-save")
    lines = err.splitlines()
    assert "Skipped, not inspected: 1 file in unsupported formats (a.heic)" in lines


def test_one_image_is_one_image(trained, dataset, tmp_path):
    _, err = run("predict", trained, dataset / "test" / "good" / "100.png", "--no-save")
    assert "Inspected 1 image:" in err


def test_test_img_without_a_display_says_how_to_keep_the_picture(ad, dataset, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.warns(UserWarning, match=r"The picture is returned: cv2\.imwrite"):
        ad.test_img(dataset / "test" / "good" / "100.png")
    with pytest.warns(UserWarning, match="save=True saves them"):
        ad.predict(dataset / "test" / "good" / "100.png", show=True, save=False)


def test_predict_prints_a_line_per_image(trained, dataset, tmp_path):
    out, err = run("predict", trained, dataset / "test", "--output", tmp_path)
    lines = out.splitlines()
    assert len(lines) == 8 and lines[0].startswith("ANOMALOUS  0.")
    assert lines[0].endswith("test/bar/200.png")
    assert "Inspected 8 images" in err and str(tmp_path) in err
    assert (tmp_path / "bar" / "200.png").is_file() and (tmp_path / CSV).is_file()


def test_predict_json_is_what_python_says(trained, dataset, tmp_path):
    out, _ = run("predict", trained, dataset / "test", "--json", "--no-save")
    expected = AD(trained).predict(dataset / "test", save=False)
    assert [json.loads(line) for line in out.splitlines()] == [p.to_dict() for p in expected]
    assert not os.listdir(tmp_path)


def test_predict_options_reach_the_inspection(trained, tmp_path):
    file = write_image(tmp_path / "in" / "a.png", draw_part(300, defect=True))
    options = ["--hardcore", "--patch-size", "8", "--thresh", "0.5", "--output", tmp_path / "out"]
    out, _ = run("predict", trained, file, file, "--json", *options)
    boxes = json.loads(out.splitlines()[0])["boxes"]
    assert json.loads(out.splitlines()[0])["threshold"] == 0.5
    assert all(x2 - x1 == 8 == y2 - y1 for x1, y1, x2, y2 in boxes)
    picture = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert picture[boxes[0][1], boxes[0][0]].tolist() == [0, 0, 255]


def test_evaluate_prints_counts_first(trained, dataset, tmp_path):
    out, _ = run("evaluate", trained, dataset)
    lines = out.splitlines()
    assert "MVTec layout" in lines[0] and lines[1].startswith("good parts")
    assert "of 4 rejected" in lines[1] and "of 4 found" in lines[2]
    facts = json.loads(run("evaluate", trained, dataset, "--json", "--thresh", "0.5")[0])
    assert facts["threshold"] == 0.5 and facts["n_good"] == facts["n_defective"] == 4
    labels = tmp_path / "labels.csv"
    files = sorted((dataset / "test").rglob("*.png"))
    rows = [f"{file},{file.parent.name}" for file in files]
    labels.write_text("\n".join(["path,label", *rows]))
    assert "labels by file" in run("evaluate", trained, labels)[0]


def test_calibrate_prints_the_directory_and_says_what_the_limit_means(trained, dataset, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(trained, model)
    out, err = run("calibrate", model, "--defective", dataset / "test")
    assert out.strip() == str(model) and "Limit by best F1" in err
    assert "Limits for other false alarm rates" in err and "of 4 rejected, 4 of 4 found" in err
    assert re.search("calibrated  .* by best F1", run("info", model)[0])
    labels = tmp_path / "labels.csv"
    rows = [f"{file},1" for file in sorted((dataset / "test" / "bar").iterdir())]
    labels.write_text("\n".join(["path,label", *rows]))
    _, err = run("calibrate", model, "--labels", labels, "--cost-ratio", "0.5")
    assert "a false alarm costs 0.5 times a miss" in err
    _, err = run("calibrate", model, code=2)
    assert "calibrate takes one of" in err
    _, err = run("calibrate", model, "--labels", labels, "--defective", dataset, code=2)
    assert "give one of them" in err
    _, err = run("calibrate", model, "--limit", "-1000", code=1)
    assert "not above the score of a typical good image" in err


def test_a_model_is_called_as_the_user_calls_it(trained, dataset, tmp_path, monkeypatch):
    """Also in what is shown to others."""
    shutil.copytree(trained, tmp_path / "padim")  # like a method
    monkeypatch.chdir(tmp_path)
    out, err = run("calibrate", "padim", "--false-alarm-rate", "0.2")
    assert out == "padim\n" and "(anomaly-ad calibrate padim --false-alarm-rate RATE)" in err
    run("report", "padim", dataset / "test", "--output", "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "anomaly-ad calibrate padim --false" in page and str(tmp_path / "padim") not in page


def test_drift_prints_a_line_per_window(trained, dataset, tmp_path):
    pytest.importorskip("scipy", reason="needs the extra 'eval'")
    run("predict", trained, dataset / "train" / "good", "--output", tmp_path)
    out, _ = run("drift", trained, tmp_path / "predictions.jsonl", "--window", "12")
    assert "5 good images of the calibration" in out and "12 to 23" in out
    facts = json.loads(run("drift", trained, tmp_path / "predictions.csv", "--json")[0])
    assert facts["whole"]["n_images"] == 24
    _, err = run("drift", trained, tmp_path / "none.csv", code=1)
    assert "no such file" in err


def test_exit_status(trained, dataset, tmp_path):
    bar, good = dataset / "test" / "bar", dataset / "train" / "good"
    predict = ["predict", trained, "--output", tmp_path]
    run(*predict, bar)
    run(*predict, bar, "--fail-on-anomaly", code=3)
    run(*predict, good / "000.png", "--fail-on-anomaly", "--thresh", "1")
    broken = write_image(tmp_path / "in" / "a.png", draw_part(0)).with_name("b.png")
    broken.write_text("no image")
    _, err = run(*predict, broken.parent, code=1)
    assert "b.png: the file is not an image" in err and "1 could not be inspected" in err
    run(*predict, broken.parent, bar / "200.png", "--fail-on-anomaly", code=3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["predict", "nothing", "x.png"], 1, "nothing' is neither"),
        (["predict", "AD1", "x.png"], 1, "AD1' is neither"),
        (["predict", "{model}", "missing.png"], 1, "no such file or folder"),
        (["predict", "{model}", "{image}", "--thresh", "nan"], 2, "thresh is a score from 0 to 1"),
        (["predict", "{model}", "{image}", "--thresh", "high"], 2, "thresh"),
        (["predict", "{model}", "{image}", "--patch-size", "3"], 2, "patch_size is the side"),
        (["predict", "{model}", "{image}", "--no-save", "--resume"], 2, "resume"),
        (["predict", "{model}"], 2, "Missing argument"),
        (["sample", "washers", "--pose", "upright"], 2, "pose is one of small, any"),
        (
            ["train", "missing", "--detector", "AD7"],
            2,
            f"Valid names: {', '.join(PRESETS)}.",
        ),
        (["train", "missing", "--detector", "{model}"], 2, "There is no detector named"),
        (["train", "missing", "--option", "beta"], 2, "NAME=VALUE"),
        (
            ["train", "missing", "--option", "beta=1"],
            2,
            "projection, channels, prior, regularization, top_share. Received: 'beta=1'",
        ),
        (["train", "missing", "--option", "seed=1"], 2, "an option of padim's own"),
        (["train", "missing", "--false-alarm-rate", "nan"], 2, "false_alarm_rate is the share"),
        (["train", "missing", "--epochs", "0"], 2, "epochs is a whole number"),
        (["test-img", "{model}", "missing.png"], 1, "no such file"),
        (["test-img", "{model}", "{image}", "--output", "{image}"], 2, "is the image itself"),
        (["info", "missing"], 1, "neither"),
        (["sample", "{image}"], 2, "rendered into a folder"),
        (["frob"], 2, "No such command"),
    ],
)
def test_errors_are_one_message_and_a_status(
    trained, dataset, monkeypatch, tmp_path, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    image = write_image(tmp_path / "image.png", draw_part(0))
    filled = [word.format(model=trained, image=image) for word in arguments]
    out, err = run(*filled, code=code)
    assert message in err.replace("\n", " ") and out == "" and "Traceback" not in err
    assert os.listdir(tmp_path) == ["image.png"]


def test_test_img(trained, dataset, tmp_path):
    image = dataset / "test" / "bar" / "200.png"
    for output, expected in ((tmp_path / "x.jpg", "x.jpg"), (tmp_path / "deep", "deep/200.png")):
        out, _ = run("test-img", trained, image, "--output", output)
        assert out == f"{tmp_path / expected}\n"
        height, width, _ = cv2.imread(str(tmp_path / expected)).shape
        assert height == SIDE and width > 2 * SIDE


def test_info(trained, tmp_path):
    out, _ = run("info", trained, "--verify")
    for text in ("AD0", "64x64 colour", "16.7% of good parts", "every file is as it was saved"):
        assert text in out
    facts = json.loads(run("info", trained, "--json")[0])
    assert facts["plan"]["method"] == "AD0" and len(facts["files"]) == 3
    assert facts["digest"] == load(trained).digest and facts["verified"] is False


def test_info_verify_finds_a_flipped_byte_that_predicting_needs_not(trained, tmp_path):
    import shutil

    model = shutil.copytree(trained, tmp_path / "model")
    state = next(model.glob("*.npz"))
    content = bytearray(state.read_bytes())
    content[100] ^= 1
    state.write_bytes(content)
    run("info", model)
    _, err = run("info", model, "--verify", code=1)
    assert "is not as it was saved" in err


def test_detectors():
    out, _ = run("detectors")
    assert all(f"{name} " in out for name in PRESETS) and "code_channels=4" in out
    assert set(json.loads(run("detectors", "--json")[0])) == set(PRESETS)


@pytest.mark.slow
def test_sample(tmp_path, monkeypatch):
    from anomaly_ad.data import sample

    render = sample.render_sample
    small = {"n_train": 1, "n_test_good": 1, "n_per_defect": 0, "size": (64, 64)}
    monkeypatch.setattr(
        sample, "render_sample", lambda path, **given: render(path, **given | small)
    )
    out, _ = run("sample", tmp_path / "part", "--seed", "4")
    assert out == f"{tmp_path / 'part'}\n" and (tmp_path / "part" / "train" / "good").is_dir()


# ------------------------------------------------------------------ processes of their own


def start_long_run(trained, dataset, out, count=3000):
    folder = out.parent / "many"
    folder.mkdir()
    for n in range(count):
        os.link(dataset / "test" / "bar" / "200.png", folder / f"{n:05d}.png")
    command = [*COMMAND, "predict", trained, folder, "--output", out, "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # In the background of a shell Ctrl-C is ignored, and that is passed on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (out / JSONL).exists() and (out / JSONL).stat().st_size > 60_000:
            return process, command
        time.sleep(0.01)
    raise AssertionError(process.communicate())


@pytest.mark.slow
def test_ctrl_c_ends_a_run_in_order(trained, dataset, tmp_path):
    process, _ = start_long_run(trained, dataset, tmp_path / "out")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in err and "Traceback" not in err
    rows = (tmp_path / "out" / CSV).read_text().count("\n") - 1
    assert rows == len(list(read_records(tmp_path / "out" / JSONL))) >= 20


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_nothing_is_lost_or_done_twice(trained, dataset, tmp_path):
    out = tmp_path / "out"
    process, command = start_long_run(trained, dataset, out, count=400)
    process.kill()
    process.communicate()
    before = list(read_records(out / JSONL))
    assert 20 <= len(before) < 400
    with (out / JSONL).open("a") as file:
        file.write('{"run": "cut o')  # as if the machine had crashed in the middle of a line
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0 and "Inspected 400 images" in done.stderr
    lines = list(read_records(out / JSONL))
    assert lines[: len(before)] == before
    names = [line["path"] for line in lines]
    assert len(names) == len(set(names)) == 400
    assert len({line["run"] for line in lines}) == 1
    assert len((out / CSV).read_text().splitlines()) == 401
    printed = [json.loads(line)["path"] for line in done.stdout.splitlines()]
    assert printed == sorted(names)


@pytest.mark.slow
def test_two_processes_write_into_the_same_output(trained, dataset, tmp_path):
    out = tmp_path / "out"
    first, command = start_long_run(trained, dataset, out, count=200)
    second = subprocess.run(command, capture_output=True, text=True)
    first.communicate()
    assert first.returncode == second.returncode == 0
    text = (out / JSONL).read_text()
    lines = list(read_records(out / JSONL))
    assert len(lines) == text.count("\n") == 400
    runs = [line["run"] for line in lines]
    assert sorted(map(runs.count, set(runs))) == [200, 200]
    assert len((out / CSV).read_text().splitlines()) == 201
    assert not [name for name in os.listdir(out) if name.startswith(".")]
    assert cv2.imread(str(out / "00100.png")) is not None


def test_a_reader_that_goes_away_is_no_traceback(trained, dataset):
    command = [*COMMAND, "predict", trained, dataset / "test", "--no-save", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    error = process.stderr.read().decode()
    process.wait()
    assert "Traceback" not in error and process.returncode == 1
