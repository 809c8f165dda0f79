"""The example scripts run as a user would run them."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from conftest import draw_part, write_image

ROOT = Path(__file__).parents[1]
SMALL = {"n_train": 12, "n_test_good": 2, "n_per_defect": 1, "size": (96, 96)}


def test_line(trained, tmp_path):
    for n in range(3):
        write_image(tmp_path / f"{n}.jpg", draw_part(400 + n, defect=n == 1))
    command = [sys.executable, ROOT / "examples" / "line.py", trained, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "part 1: STOP" in done.stdout and "part 2: " in done.stdout
    assert "x 32..48" in done.stdout


TASKS = ("line", "fastapi_client", "compare", "my_statistical_method", "camera", "export")


@pytest.mark.parametrize("task", TASKS)
def test_an_example_of_a_task_is_read_in_a_minute(task):
    lines = (ROOT / "examples" / f"{task}.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 50


def test_camera(trained, tmp_path):
    for n in range(3):
        write_image(tmp_path / f"part_{n}.png", draw_part(400 + n, defect=n == 1))
    source = tmp_path / "part_%d.png"
    command = [sys.executable, ROOT / "examples" / "camera.py", trained]
    done = subprocess.run(
        [*command, source], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    assert len(said) == 3 and said[1].startswith("frame 1: STOP")
    assert (tmp_path / "Output" / "camera" / "predictions.jsonl").is_file()
    done = subprocess.run([*command, "nowhere.mp4"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "nowhere.mp4 cannot be opened" in done.stderr


@pytest.mark.slow
def test_compare(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad.data import sample

    sample.render_sample(tmp_path / "data", **{**SMALL, "n_train": 20, "n_test_good": 4})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", "data", "padim", "dfkde"])
    runpy.run_path(str(ROOT / "examples" / "compare.py"), run_name="__main__")
    assert re.search(r"Recommended: (padim|dfkde)", capsys.readouterr().out)
    assert Path("comparison.html").is_file() and Path("Models/best/manifest.json").is_file()


@pytest.mark.slow
def test_export(washer, tmp_path):
    if not shutil.which("cmake") or not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("cmake or a C++ compiler is not installed")
    photographs = [washer[1] / "test" / kind / "000.jpg" for kind in ("dent", "good")]
    command = [sys.executable, ROOT / "examples" / "export.py", washer[0], *photographs]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode and ("nlohmann" in done.stderr or "OpenCV" in done.stderr):
        pytest.skip("cmake finds no OpenCV or nlohmann-json to build the C++ example with")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("same verdict") == 2 and "OTHER" not in done.stdout


@pytest.mark.slow
def test_heatmaps(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    import anomaly_ad.data as data

    render = data.render_sample
    small = {"n_train": 12, "n_test_good": 1, "n_per_defect": 4, "size": (96, 96)}
    monkeypatch.setattr(data, "render_sample", lambda path: render(path, **small))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["heatmaps.py", "padim"])
    runpy.run_path(str(ROOT / "examples" / "heatmaps.py"), run_name="__main__")
    for name in ("originals", "padim"):
        assert cv2.imread(f"docs/heatmaps/{name}.jpg").shape == (128, 640, 3)


@pytest.mark.slow
@pytest.mark.parametrize("method", [[], ["AD1"]], ids=["padim", "AD1"])
def test_example_and_the_readme_picture(tmp_path, monkeypatch, capsys, method):
    """Example.py with a small sample and few epochs, then the picture from what it wrote."""
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad import AD
    from anomaly_ad.data import sample

    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    render, train = sample.render_sample, AD.train
    small = {"n_train": 12, "n_test_good": 2, "n_per_defect": 4, "size": (96, 96)}
    monkeypatch.setattr(sample, "render_sample", lambda path, progress: render(path, **small))
    monkeypatch.setattr(AD, "train", lambda ad: train(ad, 2))
    monkeypatch.setattr(sys, "argv", ["Example.py", *method])
    runpy.run_path(str(ROOT / "Example.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert all(kind in out for kind in (*sample.DEFECTS, "good", "Output/hardcore"))
    assert AD("Models/model").model.manifest.plan.method == (method or ["padim"])[0]
    monkeypatch.setattr(sys, "argv", ["picture.py"])
    runpy.run_path(str(ROOT / "examples" / "picture.py"), run_name="__main__")
    assert cv2.imread("docs/washer.jpg").shape == (600, 1200, 3)


@pytest.mark.slow
def test_padim(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad.data import sample

    sample.render_sample(tmp_path / "data", **SMALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["padim.py", "data"])
    runpy.run_path(str(ROOT / "examples" / "padim.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert all(kind in out for kind in (*sample.DEFECTS, "good", "the decision limit"))
    assert (tmp_path / "Output" / "padim" / "dent" / "000.jpg").is_file()


@pytest.mark.slow
def test_the_notebook(tmp_path):
    """Every cell runs; with a small sample set in the place of the default one."""
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    pytest.importorskip("matplotlib", reason="needs the extra 'eval'")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra 'test'")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra 'test'")
    notebook = nbformat.read(ROOT / "examples" / "inspection.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace(
                'render_sample("Dataset/Washer")', f'render_sample("Dataset/Washer", **{SMALL})'
            )
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": tmp_path}}
    ).execute()
    texts = [
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert any("good parts " in text for text in texts)
    assert (tmp_path / "report.html").is_file() and (tmp_path / "Models" / "model").is_dir()
    pictures = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["statistical", "gradient"])
def test_a_method_of_ones_own_predicts_where_it_was_never_imported(kind, tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad.data import sample

    sample.render_sample(tmp_path / "data", **SMALL)
    code = (
        "import runpy, sys\nfrom anomaly_ad import AD\n"
        "train = AD.train\nAD.train = lambda ad: train(ad, 2)\n"
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    script = ROOT / "examples" / f"my_{kind}_method.py"
    command = [sys.executable, "-c", code, script, "data"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "image AUROC" in done.stdout, done.stderr
    (manifest,) = (tmp_path / "Models").glob("*/manifest.json")
    code = (
        "import sys\nfrom anomaly_ad import AD\n"
        "predictions = AD(sys.argv[1]).predict('data/test', save=False)\n"
        "assert all(p.error is None for p in predictions) and len(predictions) > 3\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, manifest.parent]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
