"""Which images show one part: by a pattern in their paths, or by labels."""

import math

import numpy as np
import pytest
from conftest import write_parts
from hypothesis import given
from hypothesis import strategies as st

from anomaly_ad.errors import OptionError, PathError
from anomaly_ad.images import find_training_images, split, split_groups
from anomaly_ad.images.groups import grouped, numbered


@pytest.fixture
def images(tmp_path):
    """Three parts, two photographs of each: good/<camera>/part<n>_<photograph>.png."""
    for part in range(3):
        for camera in ("left", "right"):
            (file,) = write_parts(tmp_path / "one", 1, first=part).iterdir()
            target = tmp_path / "good" / camera / f"part{part}_{camera}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
    return find_training_images(tmp_path / "good")


@pytest.mark.parametrize(
    ("pattern", "labels"),
    [
        ("part([0-9])", ["0", "1", "2"] * 2),
        ("part[0-9]", ["part0", "part1", "part2"] * 2),
        ("^([a-z]+)/", ["left"] * 3 + ["right"] * 3),  # the path within the folder, with /
        ("(?:left|right)/(part.)_(left|right)", ["part0", "part1", "part2"] * 2),
    ],
)
def test_a_pattern_is_searched_in_the_path_within_the_folder(images, pattern, labels):
    found = grouped(images, pattern)
    assert found.groups == tuple(labels) and found.grouped_by == pattern
    assert found.paths == images.paths
    in_a_list = grouped(find_training_images([*images.paths]), pattern)
    assert in_a_list.groups == tuple(labels)


def test_groups_in_words(images):
    assert "3 groups of 2 images" in str(grouped(images, "part[0-9]"))
    labels = ["a", "a", "a", "b", "b", "c"]
    assert grouped(images, labels).grouping == "3 groups of 1 to 3 images"
    assert "groups of" not in str(images)


def test_labels_come_in_the_order_of_the_files_or_by_path(images):
    labels = [3, 3.0, "3", np.int64(4), np.float32(4), " 5.5 "]
    found = grouped(images, labels)
    assert found.groups == ("3", "3", "3", "4", "4", "5.5") and found.grouped_by == "labels"
    by_path = dict(zip(reversed(images.paths), reversed(labels), strict=True))
    assert grouped(images, by_path).groups == found.groups
    assert grouped(images, np.array([1, 1, 2, 2, 3, 3])).groups == tuple("112233")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("part(", "regular expression"),
        ("part[01]", r"no group for 2 of 6 files, such as left/part2_left\.png"),
        ("camera", "no group for 6 of 6 files"),
        ("x*", "no group for 6 of 6"),  # matches, but nothing
        ("part0_(left)|part", "no group for 5 of 6"),
        (["a"] * 5, "Groups and files do not match: 5 groups for 6 files"),
        ([], "0 groups for 6 files"),
        (["a"] * 5 + [None], "Received: None"),
        (["a"] * 5 + [math.nan], "Received: nan"),
        (["a"] * 5 + [math.inf], "Received: inf"),
        (["a"] * 5 + [" "], "Received: ' '"),
        (["a"] * 5 + [True], "Received: True"),
        ({"a"}, "a list in the order of the files, or a dictionary by path"),
        (7, "a list in the order of the files"),
        (b"part", "a list in the order of the files"),
    ],
)
def test_groups_that_are_refused(images, groups, message):
    with pytest.raises(OptionError, match=message):
        grouped(images, groups)


def test_paths_that_do_not_match(images):
    with pytest.raises(OptionError, match=r"no group for .*part2_right\.png"):
        grouped(images, dict.fromkeys(images.paths[:5], "a"))
    with pytest.raises(OptionError, match=r"no file for the group of .*other\.png"):
        grouped(images, dict.fromkeys([*images.paths, "other.png"], "a"))
    with pytest.raises((OptionError, PathError)):
        grouped(images, dict.fromkeys([*images.paths, 7], "a"))


@given(st.lists(st.integers(0, 9), min_size=3, max_size=60), st.integers(0, 99))
def test_a_split_keeps_groups_together(labels, seed):
    groups = numbered([str(label) for label in labels])
    count = len(set(labels))
    assert sorted(set(groups)) == [*range(count)]
    parts = split_groups(groups, [count // 3], seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert not set(groups[parts[0]]) & set(groups[parts[1]])
    assert len(set(groups[parts[1]])) == count // 3
    for one, other in zip(parts, split_groups(groups, [count // 3], seed), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.integers(3, 50), st.integers(0, 99))
def test_images_by_themselves_are_split_as_ever(count, seed):
    sizes = [count // 4, 1]
    received = split_groups(np.arange(count), sizes, seed)
    for one, other in zip(received, split(count, sizes, seed), strict=True):
        np.testing.assert_array_equal(one, other)
