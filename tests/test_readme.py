"""README and pages are true: blocks run, commands exist, options and methods are described."""

import ast
import importlib.util
import inspect
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from anomaly_ad import AD, AnomalyADError, errors
from anomaly_ad.data.sample import render_sample
from anomaly_ad.methods.registry import PRESETS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = {page.stem: page for page in (ROOT / "docs").glob("*.md")}
ALL = [README, *sorted(PAGES.values())]
SMALL = {"n_train": 20, "n_test_good": 3, "n_per_defect": 1, "size": (128, 128)}
LONGEST = 150  # lines of the README


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def commands(page):
    """All lines of a page that call the command line: of blocks, and in backticks."""
    text = text_of(page)
    lines = "\n".join(blocks(page, "bash")).splitlines()
    lines += re.findall(r"`(anomaly-ad [^`\n]*)`", text)
    return [line for line in lines if line.startswith("anomaly-ad ")]


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """The folders that blocks speak of, small, and where they are in the current folder."""
    monkeypatch.chdir(tmp_path)
    sample = render_sample("made", **SMALL)
    Path("Dataset").mkdir()
    shutil.copytree(sample / "train" / "good", "Dataset/Train")
    shutil.copytree(sample / "test", "Dataset/Test")
    shutil.copytree(Path("Dataset/Test/good"), "Dataset/Tuesday")
    render_sample("more", **{**SMALL, "n_train": 3, "n_per_defect": 0}, seed=1)
    shutil.copytree("more/train/good", "Dataset/More")
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    folder = tmp_path_factory.mktemp("model")
    sample = render_sample(folder / "sample", **SMALL)
    return AD("padim", sample, save_path=folder).train(review=False).model.directory


def test_the_readme_is_one_screen_and_some():
    assert len(text_of(README).splitlines()) <= LONGEST


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in ALL if blocks(page, "python")], ids=lambda page: page.stem
)
@pytest.mark.usefixtures("dataset")
def test_the_blocks_run_in_order(page, model):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    code = [compile(block, page.name, "exec") for block in blocks(page, "python")]
    if page.stem not in ("README", "start"):  # these train it
        shutil.copytree(model, "Models/model")
    for module in re.findall(r"(?m)^from (\w+)", "".join(blocks(page, "python"))):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is of another package; its blocks were compiled")
    names = {}
    for block in code:
        exec(block, names)


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
    named = set()
    lines = "\n".join([*blocks(PAGES["commands"], "bash"), *blocks(README, "bash")]).splitlines()
    for line in lines:
        if not line.startswith("anomaly-ad "):
            continue
        _, command, *arguments = line.replace("--epochs 75", "--epochs 1").split(" > ")[0].split()
        result = CliRunner().invoke(app, [command, *arguments])
        assert result.exit_code == 0, (line, result.stderr)
        named.add(command)
    # What waits for a person in a browser, does not end or takes minutes has tests of its own.
    others = {"optimize", "roi", "serve", "watch"}
    assert named == {command.name for command in app.registered_commands} - others
    for command in others:
        assert f"`anomaly-ad {command} " in text_of(PAGES["commands"])
    assert (tmp_path / "Output" / "look" / "000.jpg").is_file()


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page):
    from anomaly_ad.cli import app

    group = get_command(app)
    for line in commands(page):
        words = shlex.split(line.split(" > ")[0], comments=True)[1:]
        if not words or words[0].startswith("-") or not re.fullmatch(r"[a-z-]+", words[0]):
            continue
        assert words[0] in group.commands, line
        known = {
            name
            for parameter in group.commands[words[0]].params
            for name in [*parameter.opts, *parameter.secondary_opts]
        }
        for word in words[1:]:
            if word.startswith("--"):
                assert word in known | {"--help"}, line


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_files_that_it_names_exist(page):
    text = text_of(page)
    named = re.findall(r"`((?:anomaly_ad|benchmarks|examples|docs|tests)/[\w./]+)`", text)
    named += re.findall(r"python ((?:benchmarks|examples)/[\w./]+)", text)
    for name in named:
        assert (ROOT / name).exists(), name
    for name, anchor in re.findall(r"\]\(((?!http)[\w./]*)(?:#([\w-]+))?\)", text):
        target = page.parent / name if name else page
        assert target.exists(), name
        if anchor and target.suffix == ".md":
            headings = re.findall(r"(?m)^#+ (.*)$", text_of(target))
            assert anchor in {slug(heading) for heading in headings}, (name, anchor)


def slug(heading):
    """As GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_method_is_named_wherever_methods_are():
    for name in PRESETS:
        for page in (PAGES["method"], PAGES["reference"]):
            assert f"`{name}`" in text_of(page), (page.name, name)
        assert (ROOT / "docs" / "heatmaps" / f"{name}.jpg").is_file()


def test_every_call_is_described_as_it_is():
    text = text_of(PAGES["reference"])
    methods = [
        name for name in vars(AD) if not name.startswith("_") and callable(getattr(AD, name))
    ]
    for name in methods:
        method = getattr(AD, name)
        own = "AD." if inspect.ismethod(method) else ""
        signature = inspect.signature(method)
        bare = [
            parameter.replace(annotation=inspect.Parameter.empty)
            for parameter in signature.parameters.values()
            if parameter.name != "self"
        ]
        written = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
        written = re.sub(r"'([^']*)'", r'"\1"', written)
        assert f"`{own}{name}{written}`" in text, name
    for parameter in inspect.signature(AD).parameters:
        if parameter != "parameters":
            assert f"`{parameter}`" in text


def test_the_table_of_methods_has_every_option_with_its_default():
    """Where a row says "as above", the row that it means."""
    said = [
        (name, ast.literal_eval(value))
        for name, value in re.findall(r"`([a-z_]+)=([^`]+)`", text_of(PAGES["reference"]))
        if re.fullmatch(r"[\d.e_-]+|\[.*\]|\".*\"", value)
    ]
    for preset in PRESETS.values():
        for option in preset.options:
            assert (option.name, option.default) in said


def test_every_error_has_a_section():
    headings = re.findall(r"(?m)^### (.*)$", text_of(PAGES["faq"]))
    kinds = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, AnomalyADError)
    }
    assert kinds - {"AnomalyADError"} <= set(headings)


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_tables_have_as_many_cells_in_every_row(page):
    tables = re.findall(r"(?:^\|.*\|\n)+", text_of(page), re.MULTILINE)
    for table in tables:
        cells = [
            len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in table.splitlines()
        ]
        assert len(set(cells)) == 1, table


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(
        r"(?m)^(\w+)$",
        "\n".join(re.findall(r"```{toctree}(.*?)```", text_of(PAGES["index"]), re.DOTALL)),
    )
    assert sorted(listed) == sorted(PAGES.keys() - {"index"})
    linked = {Path(name).stem for name in re.findall(r"\]\(docs/(\w+\.md)\)", text_of(README))}
    assert set(listed) - linked <= {"api", "review"}


def test_the_example_takes_padim_and_other_methods(monkeypatch):
    import runpy

    names = runpy.run_path(str(ROOT / "Example.py"))
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
