"""The benchmarks fit the package: each can at least be imported."""

import runpy
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

FILES = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_can_be_imported(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    found = runpy.run_path(str(file), run_name="benchmark")
    assert found["__doc__"]
