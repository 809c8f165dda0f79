import copy
import importlib.metadata
import pickle
from pathlib import Path, PurePosixPath

import pytest
from conftest import run_command

from anomaly_ad import ImageTooLargeError, PathError, errors

FAQ = Path(__file__).parents[1] / "docs" / "faq.md"


@pytest.fixture
def fresh():
    errors.documentation.cache_clear()
    yield
    errors.documentation.cache_clear()


def test_an_error_names_the_section_that_explains_it():
    error = ImageTooLargeError("a.png is large")
    assert str(error) == "a.png is large"
    (note,) = error.__notes__
    page, section = note.removeprefix("More: ").split("#")
    assert Path(page).read_text(encoding="utf-8").count("### ImageTooLargeError\n") == 1
    assert section == "imagetoolargeerror"


def _pickled(error):
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - our own


@pytest.mark.parametrize("carried", [copy.copy, _pickled])
def test_an_error_is_carried_whole(carried):
    error = carried(PathError("no such folder"))
    assert str(error) == "no such folder" and isinstance(error, FileNotFoundError)
    assert len(error.__notes__) == 1


@pytest.mark.usefixtures("fresh")
def test_the_pages_of_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "errors.py"))

    class Installed(PurePosixPath):
        def locate(self):
            return tmp_path / "site-packages" / self

    names = ["anomaly_ad/errors.py", "../share/doc/anomaly-ad/faq.md"]
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [Installed(name) for name in names])
    expected = (tmp_path / "share" / "doc" / "anomaly-ad" / "faq.md").resolve()
    assert errors.documentation("faq.md") == expected
    assert errors.documentation("other.md") is None


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("found", [None, importlib.metadata.PackageNotFoundError()])
def test_without_pages_the_message_stands_alone(tmp_path, monkeypatch, found):
    def files(_):
        if found is not None:
            raise found

    monkeypatch.setattr(errors, "__file__", str(tmp_path / "package" / "errors.py"))
    monkeypatch.setattr(importlib.metadata, "files", files)
    assert not hasattr(PathError("no such folder"), "__notes__")


def test_the_command_line_prints_it(tmp_path):
    _, stderr = run_command("info", tmp_path / "nowhere", code=1)
    assert stderr.endswith(f"More: {FAQ}#modelerror\n")
