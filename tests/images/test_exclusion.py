"""Images that a person leaves out: what a name may look like, and what is refused."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from anomaly_ad.errors import DataError, OptionError, PathError
from anomaly_ad.images.exclusion import as_line, located, without
from anomaly_ad.images.folders import TrainingImages

NAMES = ("a/0.png", "a/1.png", "b/0.png", "b/2.png", "b/ 3 .png")


@pytest.fixture
def good(tmp_path, monkeypatch):
    """Files in two folders, named from where we are; they need not exist."""
    monkeypatch.chdir(tmp_path)
    return TrainingImages(Path("Parts"), tuple(Path("Parts", name) for name in NAMES))


def excluded(found):
    return [str(path.relative_to("Parts")) for path in found.excluded]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/0.png", "a/0.png"),  # within the folder
        ("./a//0.png", "a/0.png"),
        ("Parts/b/0.png", "b/0.png"),  # as it was given
        ("{here}/Parts/b/0.png", "b/0.png"),  # absolute
        ("1.png", "a/1.png"),  # there is one of it
        (" 3 .png", "b/ 3 .png"),  # spaces belong to it
        (Path("b/2.png"), "b/2.png"),
    ],
)
def test_a_name(good, name, expected):
    name = name.format(here=Path.cwd()) if isinstance(name, str) else name
    found = without(good, [name])
    assert excluded(found) == [expected]
    assert [str(path.relative_to("Parts")) for path in found.paths] == [
        name for name in NAMES if name != expected
    ]
    assert "4 images of good parts from Parts" in str(found) and "1 excluded" in str(found)


def test_all_names_that_match_no_image_or_several_are_listed(good):
    with pytest.raises(DataError, match="2 of the names to exclude do not match") as caught:
        without(good, ["a/0.png", "0.png", "c/9.png"])
    listed = str(caught.value).splitlines()[1:]
    assert listed == ["  0.png (matches a/0.png, b/0.png)", "  c/9.png (matches none)"]


def test_a_file_with_one_name_in_a_line(good, tmp_path):
    file = tmp_path / "exclude.txt"
    file.write_bytes("\ufeffa/1.png\r\n\r\nb/ 3 .png\na/1.png".encode())
    assert excluded(without(good, "exclude.txt")) == ["a/1.png", "b/ 3 .png"]
    assert excluded(without(good, file)) == ["a/1.png", "b/ 3 .png"]
    file.write_bytes(b"")
    assert without(good, file) == good


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
def test_names_that_are_not_text(good, tmp_path):
    odd = [os.fsdecode(b"a/\xff.png"), "a/two\nlines.png"]
    both = replace(good, paths=(*good.paths, *(Path("Parts", name) for name in odd)))
    assert [as_line(name) for name in odd] == ["a/\\udcff.png", "a/two\\x0alines.png"]
    for names in (odd, [as_line(name) for name in odd]):
        assert excluded(without(both, names)) == odd
    (tmp_path / "raw.txt").write_bytes(b"a/\xff.png\n")
    assert excluded(without(both, "raw.txt")) == odd[:1]


def test_groups_stay_with_their_images(good):
    grouped = replace(good, groups=("p", "q", "r", "s", "t"))
    assert without(grouped, ["a/1.png", "b/2.png"]).groups == ("p", "r", "t")


@pytest.mark.parametrize(
    ("exclude", "error", "message"),
    [
        ("none.txt", PathError, "none.txt: the list of images to exclude cannot be read"),
        ("a/0.png", OptionError, r"To leave out one image pass \['a/0.png'\]"),
        ("", OptionError, "exclude is a path, and this one is empty"),
        (7, OptionError, "exclude is a text file with one name in a line, or a list of names"),
        ([7], OptionError, "A name to exclude is a path. Received: 7"),
        ("binary.txt", OptionError, "binary.txt is not a text file"),
    ],
)
def test_what_is_not_a_list_is_refused(good, exclude, error, message, tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    with pytest.raises(error, match=message):
        without(good, exclude)


def test_a_list_of_files_is_located_in_the_folder_that_they_share(tmp_path):
    paths = (tmp_path / "x" / "a" / "0.png", tmp_path / "x" / "b" / "0.png")
    found = without(TrainingImages(None, paths), ["b/0.png"])
    assert found.paths == paths[:1] and found.excluded == paths[1:]
    root, names = located(found)
    assert root == tmp_path / "x" and names == [Path("a/0.png"), Path("b/0.png")]
