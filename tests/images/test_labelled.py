"""Which images are good, which are not, and where their masks are."""

import numpy as np
import pytest
from conftest import draw_part, write_image

from anomaly_ad.errors import DataError, OptionError, PathError
from anomaly_ad.images.labelled import find_labelled, read_labels


def write(folder, *names):
    """Images, and masks in folders called ground_truth."""
    for name in names:
        is_mask = "ground_truth" in name
        write_image(
            folder / name, (draw_part(0) > 200).astype(np.uint8) if is_mask else draw_part(0)
        )
    return folder


def kinds(labelled):
    return [item.kind for item in labelled.items]


@pytest.mark.parametrize("test", ["test", "Test"])
def test_mvtec_layout_with_masks(tmp_path, test):
    root = write(tmp_path, f"{test}/good/0.png", f"{test}/dent/0.jpg", f"{test}/dent/1.jpg")
    write(root, "train/good/9.png", "ground_truth/dent/0_mask.png", "ground_truth/dent/1.png")
    labelled = find_labelled(root)
    assert kinds(labelled) == ["dent", "dent", "good"]
    assert [item.mask and item.mask.name for item in labelled.items] == [
        "0_mask.png",
        "1.png",
        None,
    ]
    assert "MVTec layout" in labelled.layout and "with masks" in labelled.layout
    assert str(labelled).startswith("1 good, 2 dent images from")
    inner = find_labelled(root / test)
    assert [item.mask for item in inner.items] == [item.mask for item in labelled.items]


def test_good_and_anything_else_without_masks(tmp_path):
    root = write(tmp_path, "Good/0.png", "scratch/deep/0.png", "loose.png", "stain/1.BMP")
    labelled = find_labelled(root)
    assert kinds(labelled) == ["defective", "good", "scratch", "stain"]
    assert all(item.mask is None for item in labelled.items)
    assert labelled.counts["good"] == 1 and "masks" not in labelled.layout


def test_without_good_all_are_defective(tmp_path):
    flat = find_labelled(write(tmp_path / "flat", "0.png", "1.png"))
    assert kinds(flat) == ["defective"] * 2 and "all are defective" in flat.layout
    nested = find_labelled(write(tmp_path / "nested", "dent/0.png", "hole/1.png"))
    assert kinds(nested) == ["dent", "hole"]


def test_a_defect_without_a_mask_has_none_and_masks_of_good_images_are_no_error(tmp_path):
    root = write(tmp_path, "good/0.png", "dent/0.png", "dent/1.png")
    write(root, "ground_truth/dent/0_mask.png", "ground_truth/good/0_mask.png")
    labelled = find_labelled(root)
    assert [item.mask is not None for item in labelled.items] == [True, False, False]


def test_masks_without_images_are_an_error_that_lists_them(tmp_path):
    root = write(tmp_path, "test/good/0.png", "test/dent/0.png", "ground_truth/dent/7_mask.png")
    with pytest.raises(DataError, match=r"1 masks .*have no image: .*7_mask\.png"):
        find_labelled(root)


def test_lists_and_labels(tmp_path):
    root = write(tmp_path, "a.png", "b.png", "c.png", "d.png")
    files = sorted(root.iterdir())
    assert kinds(find_labelled(files, [False, True, "good", "dent"])) == [
        "good",
        "defective",
        "good",
        "dent",
    ]
    assert kinds(find_labelled(files[:2], np.array([0, 1]))) == ["good", "defective"]
    mapping = {str(files[1]): "1", files[0]: "good"}
    assert kinds(find_labelled(files[:2], mapping)) == ["good", "defective"]


def test_labels_that_do_not_match_files(tmp_path):
    files = sorted(write(tmp_path, "a.png", "b.png").iterdir())
    for labels, message in (
        (None, "needs labels"),
        ([0], "1 labels for 2 files"),
        ({files[0]: 0}, r"no label for .*b\.png"),
        ({files[0]: 0, files[1]: 1, tmp_path / "c.png": 1}, r"no file .*c\.png"),
        ([0, 2], "A label is"),
        ([0, ""], "A label is"),
        ([0, None], "A label is"),
    ):
        with pytest.raises(OptionError, match=message):
            find_labelled(files, labels)
    with pytest.raises(OptionError, match="labels need a list"):
        find_labelled(tmp_path, [0, 1])
    with pytest.raises(PathError, match=r"c\.png"):
        find_labelled([tmp_path / "c.png"], [0])
    with pytest.raises(DataError, match="empty"):
        find_labelled([], [])


def test_no_folder_and_no_images(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path, "a.png")
    with pytest.raises(DataError, match="no images"):
        find_labelled(tmp_path / "empty")
    with pytest.raises(PathError, match="does not exist"):
        find_labelled(tmp_path / "missing")
    with pytest.raises(PathError, match="is a file"):
        find_labelled(tmp_path / "a.png")


def test_what_is_called_good_is_good_wherever_it_lies(tmp_path):
    root = write(tmp_path, "A/good/0.png", "A/bad/0.png", "B/GOOD/1.png", "Good/2.png")
    assert sorted(kinds(find_labelled(root))) == ["bad", "good", "good", "good"]
    only = find_labelled(root / "A" / "good")
    assert kinds(only) == ["good"] and "all are good" in only.layout
    write(tmp_path / "both", "good/0.png", "test/x/0.png")
    with pytest.raises(DataError, match="holds both test and good"):
        find_labelled(tmp_path / "both")


def test_masks_of_other_folders_are_not_taken(tmp_path):
    write(tmp_path, "train/good/0.png", "test/dent/0.png", "ground_truth/dent/0_mask.png")
    labelled = find_labelled(tmp_path / "train")
    assert kinds(labelled) == ["good"] and "masks" not in labelled.layout
    (tmp_path / "other" / "ground_truth").mkdir(parents=True)
    write(tmp_path / "other", "dent/0.png")
    assert "masks" not in find_labelled(tmp_path / "other").layout


def test_a_table_of_labels(tmp_path):
    write(tmp_path / "images", "a.png", "b.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nimages/a.png,good\nimages/b.png,dent\n")
    assert kinds(find_labelled(*read_labels(table))) == ["good", "dent"]
    table.write_text("path,label\nimages/a.png,0.0\nimages/b.png,1.0\n")
    assert kinds(find_labelled(*read_labels(table))) == ["good", "defective"]
    table.write_text("path,label\nimages/a.png,0.3\n")
    with pytest.raises(OptionError, match="A label is"):
        find_labelled(*read_labels(table))
    table.write_text("file,kind\na.png,good\n")
    with pytest.raises(DataError, match="columns path and label"):
        read_labels(table)
    table.write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_labels(table)
    with pytest.raises(PathError, match="cannot be read"):
        read_labels(tmp_path / "none.csv")
