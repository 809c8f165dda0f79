"""Which files training learns from and evaluation counts: the table in docs/data.md, and more."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import draw_part, write_image

from anomaly_ad.errors import DataError, OptionError, PathError
from anomaly_ad.images import find_images, find_training_images, list_images, read_image
from anomaly_ad.images.labelled import find_labelled
from anomaly_ad.images.names import meaning

DOCS = Path(__file__).parents[2] / "docs" / "data.md"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_mask(path, *, marked=True):
    mask = np.zeros((64, 64), np.uint8)
    mask[20:30, 20:40] = 255 * marked
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", mask)[1])


def write_images(root, *names):
    for number, name in enumerate(names):
        write_image(root / name, draw_part(number))
    return root


def relative(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def _rows():
    lines = re.findall(r"^\| (`.*) \| (.*) \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.M)
    return [pytest.param(*line, id=line[0].replace("`", "")) for line in lines]


def test_the_table_is_there():
    assert len(_rows()) >= 20


@pytest.mark.parametrize(("files", "training", "evaluation"), _rows())
def test_the_table_of_layouts(tmp_path, files, training, evaluation):
    root = touch(tmp_path / "data", *re.findall(r"`(.+?)`", files))
    if refused := re.fullmatch(r"refused: (.*)", training):
        with pytest.raises(DataError, match=refused[1]) as error:
            find_training_images(root)
        assert "found: " in str(error.value) and "list of files" in str(error.value)
    else:
        found = find_training_images(root)
        assert relative(found.paths, root) == re.findall(r"`(.+?)`", training)
    if refused := re.fullmatch(r"refused: (.*)", evaluation):
        with pytest.raises(DataError, match=refused[1]):
            find_labelled(root)
    else:
        counts, _, doubt = evaluation.partition("; warns of ")
        labelled = find_labelled(root)
        assert str(labelled).startswith(f"{counts} images from")
        assert doubt in labelled.doubt and bool(doubt) == bool(labelled.doubts)


# Names, with a bar between two of them.
NAMES = {
    "good": (
        "good|GOOD|ok_front|good_parts|0_ok|OK2|io|i.O.|iO|Pass|passed|gut|"
        "GutTeile|bon|bonne|buono|Bueno|conforme|normal|in_Ordnung|no_defect|defect-"
        "free|undamaged|nominal|良品|合格|go|OkFront|sans_défaut|ohne_Fehler|fehlerfrei|"
        "non-defective|ok_washer|good_bottles|zero_defects|pas_de_defaut|aucun_defaut|"
        "fehlerfreie|einwandfreie_Teile|godkända|无缺陷|正常样本|合格产品|良好|异常なし|без_дефектов|"
        "no_scratches|scratch-free|apto|approved|ok_2024_01_05|OK_cam1|io_1|"
        "good parts|OK品|양호|무결함|无瑕疵|正品|ok_monday|OK板|正常品"
    ),
    "defective": (
        "not_ok|no_good|n.i.O.|NiO|nio|abnormal|anormal|non_conforme|NOK|NG|ko|"
        "Fail|failed|notOk|NotOk|nogood|bond_defect|ok_scratch|good_bad|def_front|"
        "def|scrap|scratch|rejects|nicht_ok|n_ok|unacceptable|pass_fail|ok_not|"
        "défaut|不良品|不合格|ej_ok|ej_godkänd|icke_ok|ei_ok|ei_hyvä|ne_ok|neOK|"
        "iyi_değil|ok_degil|не_годен|не_норма|有缺陷|불합격|비정상|gut_mit_Kratzern|ok_false|"
        "0_NG|0_ng|00_ng|0_bad|0_defective|cam0_ng|cam_0_defects|class_0_defect|"
        "v1.0_ng|lead_free_defect|free_scratch|rust_free_dent|defect_free_scratch|lead-"
        "free_ng|free_fall_damage|un_defaut|un_difetto|un_crack|n_ng|N_defects|"
        "none_damage|OK_NG|good_scratched|negodne_ng|NG品|nedobry|非正常"
    ),
    "unclear": (
        "reference|clean|goodparts_|good_not_sorted|no_1_good|not_defect_free|"
        "pas_sans_defaut|false_ok|falschOK|pseudo_ok|almost_ok|hardly_good|maybe_good|"
        "ok_unsicher|bedingt_iO|teilweise_ok|ok_rework|presque_bon|ok_hole|ok_chip|"
        "good_bent|io_module|IO_Link|goods_in|pass1|first_pass|surface_normals|"
        "color_correct|GO_gauge|GoPro|free|0_defects|良品以外|正常ではない|정상아님|良品候補|合格待ち|"
        "poor_good|half_ok|OK_pending|to_be_accepted|疑似良品"
    ),
    "neutral": (
        "parts|cam1|monday|passivation|bond|region|chip|0|broke|oktober|iodine|"
        "Ingo|nook|3_days_ago|HD_def|high_def|def_dataset|no_hole|train_wheels"
    ),
}


@pytest.mark.parametrize(
    ("name", "said"), [(name, said) for said, names in NAMES.items() for name in names.split("|")]
)
def test_what_names_say(name, said):
    assert meaning(name) == said


def test_a_name_of_the_project_does_not_make_defects_good(tmp_path):
    root = touch(tmp_path / "OK project", "OK/1.png", "NG/2.png")
    assert relative(find_training_images(root).paths, root) == ["OK/1.png"]
    assert find_labelled(root).counts == {"good": 1, "NG": 1}
    other = touch(tmp_path / "good parts", "parts/1.png", "NG/2.png")
    with pytest.raises(DataError, match="several folders"):
        find_training_images(other)
    assert find_labelled(other).counts == {"NG": 1, "parts": 1}
    plain = touch(tmp_path / "Gut", "1.png", "monday/2.png")
    assert len(find_training_images(plain).paths) == 2
    assert find_labelled(plain).counts == {"good": 2}


def test_what_is_not_used_is_counted_and_named(tmp_path):
    root = touch(
        tmp_path, "train/good/1.png", "train/def/2.png", "train/3.png", "train/good/4.heic"
    )
    text = str(find_training_images(root))
    assert text.startswith("1 images of good parts from")
    assert "1 image in def" in text and f"1 image in {root / 'train'}" in text
    assert "1 file in unsupported formats (4.heic)" in text


# ------------------------------------------------------------------------------------ suffixes

SUFFIXES = [
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".dib",
    ".tif",
    ".tiff",
    ".webp",
    ".jp2",
    ".pgm",
    ".ppm",
    ".pnm",
]


def test_every_suffix_that_is_read_is_found_and_read(tmp_path):
    image = draw_part(0)
    for suffix in SUFFIXES:
        kind = {".jfif": ".jpg", ".jpe": ".jpg", ".dib": ".bmp", ".pnm": ".ppm"}.get(suffix, suffix)
        pixels = image[..., 1] if kind == ".pgm" else image[..., ::-1]
        data = cv2.imencode(kind, np.ascontiguousarray(pixels))[1]
        (tmp_path / f"{suffix[1:]}{suffix.upper()}").write_bytes(data)
    found = find_images(tmp_path)
    assert len(found) == len(SUFFIXES)
    for path in found:
        expected = image[..., 1:2] if path.suffix == ".PGM" else image
        assert np.abs(read_image(path).astype(int) - expected).mean() < 6, path


def test_what_looks_like_an_image_is_named(tmp_path):
    write_image(tmp_path / "a.png", draw_part(0))
    data = (tmp_path / "a.png").read_bytes()
    for name in ("b.heic", "c.GIF", "d.cr2"):
        (tmp_path / name).write_bytes(b"whatever")
    for name in ("no_suffix", "e.img", "sub/f.20240101"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in ("notes.txt", "BM.md", "P5.csv", "Thumbs.db", "video.avi"):
        (tmp_path / name).write_bytes(
            b"BM is a kind of image" if name != "video.avi" else b"RIFF0000AVI "
        )
    listing = list_images(tmp_path)
    assert relative(listing.images, tmp_path) == ["a.png"]
    assert sorted(relative(listing.others, tmp_path)) == sorted(
        ["b.heic", "c.GIF", "d.cr2", "no_suffix", "e.img", "sub/f.20240101"]
    )
    assert "6 files in unsupported formats (b.heic, " in listing.passed_over


# --------------------------------------------------------------------------------------- masks

LAYOUTS = {
    # where images are, where the mask of the first of them is
    "ground_truth of MVTec": ("test/dent/0.png test/good/0.png", "ground_truth/dent/0_mask.png"),
    "GroundTruth with the same name": ("test/dent/0.png test/good/1.png", "GroundTruth/dent/0.png"),
    "mask next to it": ("dent/0.png good/0.png", "mask/dent/0_mask.png"),
    "masks in test": ("test/dent/0.png test/good/0.png", "test/masks/0_mask.png"),
    "masks below the kind": ("test/dent/0.png test/good/0.png", "test/dent/masks/0.png"),
    "next to the image": ("dent/0.png good/0.png", "dent/0_mask.png"),
    "GT next to the image": ("dent/0.png good/0.png", "dent/0_GT.png"),
    "label next to the image": ("dent/0.jpg good/0.jpg", "dent/0_label.bmp"),
    "labels": ("dent/0.png good/1.png", "labels/dent/0.png"),
    "the same name": ("dent/0.jpg good/0.jpg", "dent/0.png"),
    "images and masks": ("images/dent/0.png images/good/0.png", "masks/dent/0.png"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_masks_are_masks_in_every_layout(tmp_path, name):
    images, mask = LAYOUTS[name]
    write_images(tmp_path, *images.split())
    write_mask(tmp_path / mask)
    labelled = find_labelled(tmp_path)
    assert labelled.counts == {"good": 1, "dent": 1}
    masks = {item.kind: item.mask for item in labelled.items}
    assert masks == {"good": None, "dent": tmp_path / mask}
    assert sorted(relative(list_images(tmp_path).images, tmp_path)) == sorted(images.split())


def test_masks_of_good_images_are_no_images(tmp_path):
    """As in KolektorSDD2: every image has a mask next to it it, those of good ones are black."""
    names = [f"{n:03d}.png" for n in range(4)]
    write_images(tmp_path / "train", *names)
    for name in names:
        write_mask(tmp_path / "train" / name.replace(".", "_GT."), marked=False)
    found = find_training_images(tmp_path)
    assert relative(found.paths, tmp_path / "train") == names
    assert "4 masks (000_GT.png" in str(found)
    write_mask(tmp_path / "train" / "002_GT.png")
    with pytest.raises(DataError, match=r"1 of 4 images .* marks a defect: 002_GT\.png"):
        find_training_images(tmp_path)


def test_masks_of_another_folder_show_defects_too(tmp_path):
    write_images(tmp_path / "images", "0.png", "1.png")
    write_mask(tmp_path / "masks" / "1.png")
    with pytest.raises(DataError, match=r"1 of 2 images .* marks a defect"):
        find_training_images(tmp_path)


def test_photographs_in_a_folder_called_label_are_neither_swallowed_nor_taken_for_masks(tmp_path):
    """The label is missing: a kind of defect, not a folder of labels."""
    root = write_images(tmp_path / "a", "good/0.png", "label/7.png")
    with pytest.raises(DataError, match=r"label/7\.png are named like masks, but no image has"):
        find_labelled(root)
    same_names = write_images(tmp_path / "b", "0.png", "label/0.png")
    for find in (find_labelled, find_images, find_training_images):
        with pytest.raises(DataError, match=r"label/0\.png .* is not a mask: .*like a photograph"):
            find(same_names)
    assert len(find_images(root / "label")) == 1  # named by the user


@pytest.mark.parametrize("name", ["good_masks", "masks_good", "good_gt", "ok mask"])
def test_masks_of_good_images_by_the_name_of_their_folder(tmp_path, name):
    write_images(tmp_path, "train/good/1.png")
    write_mask(tmp_path / "train" / name / "1.png", marked=False)
    assert relative(find_training_images(tmp_path).paths, tmp_path) == ["train/good/1.png"]
    write_images(tmp_path / "set", "good/1.png", "bad/1.png")
    write_mask(tmp_path / "set" / "good_mask" / "1.png", marked=False)
    write_mask(tmp_path / "set" / "bad_mask" / "1.png")
    labelled = find_labelled(tmp_path / "set")
    assert labelled.counts == {"good": 1, "bad": 1}
    masks = {item.kind: item.mask for item in labelled.items}
    assert masks == {"good": None, "bad": tmp_path / "set" / "bad_mask" / "1.png"}


@pytest.mark.parametrize("name", ["train_images", "png_images", "class_images", "img_test"])
def test_folders_of_images_are_not_those_of_masks(tmp_path, name):
    write_images(tmp_path, f"{name}/1.png", f"{name}/2.png")
    assert len(find_images(tmp_path)) == 2


def test_files_that_are_named_like_defects_are_not_learnt(tmp_path):
    touch(tmp_path, *(f"train/good_{n:03d}.png" for n in range(3)), "train/ng_000.png")
    with pytest.raises(
        DataError, match=r"1 of 4 images .* named like defects \(found: ng_000\.png"
    ):
        find_training_images(tmp_path)
    two = touch(tmp_path / "two", "1.png", "2.png", "ng_3.png", "ng_4.png")
    with pytest.raises(DataError, match="2 of 4 images"):
        find_training_images(two)
    # One alone is no way of naming; AD asks whether it is a good part.
    one = touch(tmp_path / "one", "1.png", "2.png", "broken.png")
    assert len(find_training_images(one).paths) == 3
    labelled = find_labelled(touch(tmp_path / "flat", "good_0.png", "ng_0.png"))
    assert labelled.counts == {"defective": 2} and "'good_0' may mean good" in labelled.doubt


def test_one_plain_folder_of_good_among_others(tmp_path):
    root = touch(tmp_path, "train/good/1.png", "train/ok_wrinkle/2.png", "train/crack/3.png")
    found = find_training_images(root)
    assert relative(found.paths, root) == ["train/good/1.png"]
    assert "1 image in ok_wrinkle" in str(found)
    touch(tmp_path / "b", "ok_wrinkle/1.png", "ok_bubble/2.png")
    with pytest.raises(DataError, match="several folders"):
        find_training_images(tmp_path / "b")
    root = touch(tmp_path / "c", "good/1.png", "ok_wrinkle/2.png", "NG/3.png")
    labelled = find_labelled(root)
    assert labelled.presumed == ("ok_wrinkle",) and labelled.counts["good"] == 2


def test_the_folders_that_are_learnt_from_are_named(tmp_path):
    root = touch(tmp_path, "good/cam1/1.png", "good/misaligned/2.png")
    assert "(in 2 folders: cam1, misaligned)" in str(find_training_images(root))


def test_a_data_set_one_level_down_is_suggested(tmp_path):
    root = touch(tmp_path, "data/train/1.png", "data/test/good/2.png")
    with pytest.raises(DataError, match=rf"Did you mean {root / 'data'}\?"):
        find_training_images(root)


def test_masks_say_which_images_are_good_where_no_name_does(tmp_path):
    """KolektorSDD2 in one folder; folders of the magnetic tile set."""
    write_images(tmp_path / "flat", *(f"{n}.png" for n in range(4)))
    for n in range(4):
        write_mask(tmp_path / "flat" / f"{n}_GT.png", marked=n > 1)
    assert find_labelled(tmp_path / "flat").counts == {"good": 2, "defective": 2}
    write_images(tmp_path / "tiles", "MT_Free/0.jpg", "MT_Blowhole/1.jpg")
    write_mask(tmp_path / "tiles" / "MT_Free" / "0.png", marked=False)
    write_mask(tmp_path / "tiles" / "MT_Blowhole" / "1.png")
    assert find_labelled(tmp_path / "tiles").counts == {"good": 1, "MT_Blowhole": 1}
    # Where a folder is called good, an empty mask of a defect is a mistake.
    write_images(tmp_path / "named", "good/0.png", "hole/0.png")
    write_mask(tmp_path / "named" / "hole" / "0_mask.png", marked=False)
    assert find_labelled(tmp_path / "named").counts == {"good": 1, "hole": 1}


def test_one_wrong_mask_among_many_is_an_error_not_an_image(tmp_path):
    for n in range(9):
        write_images(tmp_path, f"dent/{n}.jpg")
        write_mask(tmp_path / "dent" / f"{n}.png")
    write_images(tmp_path, "good/0.jpg")
    write_image(tmp_path / "dent" / "4.png", draw_part(4))
    with pytest.raises(DataError, match=r"dent/4\.png is not a mask"):
        find_labelled(tmp_path)


MASK_FOLDERS = (
    "mask_png|gt_mask|binary_masks|ground truth masks|MaskImages|SegmentationClass|labels_png"
    "|masques|标注|Masks_NG"
)


@pytest.mark.parametrize("name", MASK_FOLDERS.split("|"))
def test_other_names_of_folders_of_masks(tmp_path, name):
    write_images(tmp_path, "good/0.png", "NG/1.png")
    write_mask(tmp_path / name / "1.png")
    assert find_labelled(tmp_path).counts == {"good": 1, "NG": 1}


def test_a_mask_called_mask_000_beside_its_image(tmp_path):
    write_images(tmp_path, "good/0.png", "NG/000.png")
    write_mask(tmp_path / "NG" / "mask_000.png")
    labelled = find_labelled(tmp_path)
    assert labelled.counts == {"good": 1, "NG": 1} and labelled.items[0].mask is not None


def test_a_photograph_among_many_masks_is_not_overlooked(tmp_path):
    """It has no image of its name, so it may be one that is to be inspected."""
    for n in range(40):
        write_images(tmp_path, f"{n}.png")
        write_mask(tmp_path / f"{n}_mask.png")
    write_image(tmp_path / "gas_mask.png", draw_part(4))
    with pytest.raises(DataError, match=r"gas_mask\.png is not a mask: .*photograph"):
        find_images(tmp_path)


def test_masks_without_images_are_refused(tmp_path):
    write_images(tmp_path, "good/0.png", "dent/0.png")
    write_mask(tmp_path / "dent" / "5_mask.png")
    with pytest.raises(DataError, match=r"dent/5_mask\.png are named like masks, but no image"):
        find_labelled(tmp_path)


def test_a_mask_that_may_belong_to_two_images_is_refused(tmp_path):
    write_images(tmp_path, "dent/0.png", "hole/0.png", "good/0.png")
    write_mask(tmp_path / "masks" / "0.png")
    with pytest.raises(DataError, match=r"may belong to .*dent.0\.png or .*hole.0\.png"):
        find_labelled(tmp_path)


def test_two_masks_of_one_image_are_refused(tmp_path):
    write_images(tmp_path, "dent/0.png", "good/0.png")
    write_mask(tmp_path / "masks" / "dent" / "0.png")
    write_mask(tmp_path / "dent" / "0_mask.png")
    with pytest.raises(DataError, match="has two masks"):
        find_labelled(tmp_path)


def test_photographs_saved_twice_are_images(tmp_path):
    write_images(tmp_path, "0.png", "1.png")
    write_images(tmp_path, "0.jpg", "1.jpg")
    assert len(find_images(tmp_path)) == 4


# ------------------------------------------------------------------------------ odds and ends


def test_labels_are_read_like_names(tmp_path):
    files = list(write_images(tmp_path, *(f"{n}.png" for n in range(4))).iterdir())
    for good, bad in (("OK", "NG"), ("pass", "fail"), ("normal", "anomaly"), ("i.O.", "n.i.O.")):
        labelled = find_labelled(files, [good, good, bad, bad])
        assert labelled.counts == {"good": 2, bad: 2} and not labelled.doubt
    doubtful = find_labelled(files, ["reference", "reference", "dent", "dent"])
    assert doubtful.counts["good"] == 0 and "'reference' may mean good" in doubtful.doubt


def test_a_table_is_no_list_of_paths():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"path": ["a.png"]})
    with pytest.raises(OptionError, match=r"table\['path'\]"):
        find_training_images(table)
    with pytest.raises(PathError, match=r"a\.png"):
        find_training_images(table["path"])
