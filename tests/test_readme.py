"""The README is true: its Python blocks run, one after the other, and its commands exist."""

import re
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from anomaly_ad.data.sample import render_sample

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_blocks_run_in_order(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    monkeypatch.chdir(tmp_path)
    sample = render_sample("made", n_train=20, n_test_good=3, n_per_defect=1, size=(128, 128))
    (tmp_path / "Dataset").mkdir()
    (sample / "train" / "good").rename("Dataset/Train")
    (sample / "test").rename("Dataset/Test")
    render_sample("more", n_train=3, n_test_good=1, n_per_defect=0, size=(128, 128), seed=1)
    Path("more/train/good").rename("Dataset/More")
    assert len(BLOCKS) >= 3
    names = {}
    for block in BLOCKS:
        # The point is that they run, not what is learnt.
        exec(compile(block.replace("train(75)", "train(3)"), "README.md", "exec"), names)
    assert (tmp_path / "Output" / "predictions.csv").is_file()
    assert (tmp_path / "Models" / "model" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_commands_run_in_order(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    from anomaly_ad.cli import app
    from anomaly_ad.data import sample

    render = sample.render_sample
    small = {"n_train": 12, "n_test_good": 6, "n_per_defect": 1, "size": (64, 64)}
    monkeypatch.setattr(sample, "render_sample", lambda path, **_: render(path, **small))
    monkeypatch.chdir(tmp_path)
    render("more", n_train=3, n_test_good=1, n_per_defect=0, size=(64, 64), seed=1)
    Path("Dataset").mkdir()
    Path("more/train/good").rename("Dataset/More")
    packed = render("bottle", **small)
    with tarfile.open("mvtec_anomaly_detection.tar.xz", "w:xz") as archive:
        archive.add(packed, "bottle")
    text = README.read_text(encoding="utf-8")
    # The others do not end: see test_service_process.py and line/test_commands.py.
    block, *_ = re.findall(r"```bash\n(anomaly-ad .*?)```", text, re.DOTALL)
    named = set()
    for line in block.replace("--epochs 75", "--epochs 1").splitlines():
        _, command, *arguments = line.partition(" > ")[0].split()
        result = CliRunner().invoke(app, [command, *arguments])
        assert result.exit_code == 0, (line, result.stderr)
        named.add(command)
    # What waits for a person in a browser has tests of its own, and so has what takes minutes.
    assert "anomaly-ad roi IMAGE" in text and "anomaly-ad optimize Models/model" in text
    assert named == {command.name for command in app.registered_commands} - {
        "optimize",
        "roi",
        "serve",
        "watch",
    }
    assert (tmp_path / "Output" / "look" / "000.jpg").is_file()


def test_files_that_it_names_exist():
    text = README.read_text(encoding="utf-8")
    named = re.findall(r"`((?:anomaly_ad|benchmarks|examples|docs|tests)/[\w./]+)`", text)
    named += re.findall(r"\]\(((?!http)[\w./]+)\)", text)
    assert len(named) > 15
    for name in named:
        assert (README.parent / name).exists(), name


def test_every_preset_and_every_parameter_is_described():
    import inspect

    from anomaly_ad import AD
    from anomaly_ad.methods.registry import PRESETS

    text = README.read_text(encoding="utf-8")
    for name in PRESETS:
        assert f"`{name}`" in text
    methods = [getattr(AD, name) for name in vars(AD) if not name.startswith("_")]
    for method in [AD, *(method for method in methods if callable(method))]:
        for parameter in inspect.signature(method).parameters:
            if parameter not in ("self", "parameters"):
                assert f"`{parameter}`" in text, (method, parameter)


def test_the_table_of_methods_has_every_option_with_its_default():
    """Where a row says "as above", the row that it means."""
    import ast

    from anomaly_ad.methods.registry import PRESETS

    text = README.read_text(encoding="utf-8")
    said = [
        (name, ast.literal_eval(value))
        for name, value in re.findall(r"`([a-z_]+)=([^`]+)`", text)
        if re.fullmatch(r"[\d.e_-]+|\[.*\]|\".*\"", value)
    ]
    for preset in PRESETS.values():
        for option in preset.options:
            assert (option.name, option.default) in said


@pytest.mark.parametrize("page", [README, *sorted((README.parent / "docs").glob("*.md"))])
def test_tables_have_as_many_cells_in_every_row(page):
    tables = re.findall(r"(?:^\|.*\|\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    for table in tables:
        cells = [
            len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in table.splitlines()
        ]
        assert len(set(cells)) == 1, table


def test_the_example_takes_padim_and_other_methods(monkeypatch):
    import runpy

    names = runpy.run_path(str(README.parent / "Example.py"))
    methods = []
    made = names["main"].__globals__
    monkeypatch.setitem(made, "render_sample", lambda *_, **__: Path("made"))

    class Recorded:
        def __init__(self, method, **_):
            methods.append(method)

        def train(self):
            return self

        def predict(self, *_, **__):
            return []

    monkeypatch.setitem(made, "AD", Recorded)
    names["main"]()
    names["main"]("AD1")
    assert methods == ["padim", "AD1"]
