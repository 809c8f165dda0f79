"""Known data sets, in small archives as their authors pack them."""

import io
import json
import tarfile
import zipfile

import cv2
import numpy as np
import pytest
from conftest import run_command

from anomaly_ad import DataError, OptionError, OutputError, PathError
from anomaly_ad.data.layout import DATA_SETS, layout
from anomaly_ad.images import find_training_images, read_image
from anomaly_ad.images.labelled import find_labelled
from anomaly_ad.images.masks import read_mask

SIDE = 32


def picture(seed, suffix=".png"):
    pixels = np.random.default_rng(seed).integers(60, 200, (SIDE, SIDE, 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def mask(marked=255, suffix=".png"):
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[8:16, 4:12] = marked
    return cv2.imencode(suffix, pixels)[1].tobytes()


MVTEC = {
    "license.txt": b"The images are licensed CC BY-NC-SA 4.0.\nMore.\n",
    **{f"bottle/train/good/{n:03d}.png": picture(n) for n in range(4)},
    "bottle/test/good/000.png": picture(10),
    "bottle/test/crack/000.png": picture(11),
    "bottle/ground_truth/crack/000_mask.png": mask(),
    "cable/train/good/000.png": picture(12),
    "cable/test/bent/000.png": picture(13),
    "cable/ground_truth/bent/000_mask.png": mask(),
}
VISA = {
    "split_csv/1cls.csv": b"object,split,label,image,mask\n"
    b"candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
    b"candle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
    b"candle,test,anomaly,candle/Data/Images/Anomaly/0.JPG,candle/Data/Masks/Anomaly/0.png\n",
    "candle/Data/Images/Normal/0.JPG": picture(0, ".jpg"),
    "candle/Data/Images/Normal/1.JPG": picture(1, ".jpg"),
    "candle/Data/Images/Anomaly/0.JPG": picture(2, ".jpg"),
    "candle/Data/Masks/Anomaly/0.png": mask(3),
}
BTAD = {
    f"BTech_Dataset_transformed/{name}": content
    for name, content in {
        "01/train/ok/0000.bmp": picture(0, ".bmp"),
        "01/test/ok/0010.bmp": picture(1, ".bmp"),
        "01/test/ko/0020.bmp": picture(2, ".bmp"),
        "01/ground_truth/ko/0020.png": mask(),
        "03/train/ok/0000.bmp": picture(3, ".bmp"),
        "03/test/ko/0001.bmp": picture(4, ".bmp"),
        "03/ground_truth/ko/0001.bmp": mask(suffix=".bmp"),
    }.items()
}
KOLEKTOR = {
    f"kos{item:02d}/Part{part}{end}": content
    for item in range(1, 11)
    for part in range(2)
    for end, content in (
        (".jpg", picture(10 * item + part, ".jpg")),
        ("_label.bmp", mask(255 if (item, part) == (3, 1) else 0, ".bmp")),
    )
}
KOLEKTOR2 = {
    name: content
    for part, number, marked in (
        ("train", 10000, 0),
        ("train", 10001, 255),
        ("test", 20000, 0),
        ("test", 20001, 255),
    )
    for name, content in (
        (f"{part}/{number}.png", picture(number)),
        (f"{part}/{number}_GT.png", mask(marked)),
    )
}
TILE = {
    **{f"MT_Free/Imgs/exp{n}.jpg": picture(n, ".jpg") for n in range(10)},
    **{f"MT_Free/Imgs/exp{n}.png": mask(0) for n in range(10)},
    "MT_Crack/Imgs/exp1.jpg": picture(20, ".jpg"),
    "MT_Crack/Imgs/exp1.png": mask(),
    "README.md": b"Surface defects.",
}
EXPECTED = {
    "mvtec": (
        MVTEC,
        {
            "bottle/train/good": 4,
            "bottle/test/good": 1,
            "bottle/test/crack": 1,
            "cable/train/good": 1,
            "cable/test/bent": 1,
        },
        2,
    ),
    "visa": (VISA, {"candle/train/good": 1, "candle/test/good": 1, "candle/test/anomaly": 1}, 1),
    "btad": (
        BTAD,
        {
            "01/train/good": 1,
            "01/test/good": 1,
            "01/test/defect": 1,
            "03/train/good": 1,
            "03/test/defect": 1,
        },
        2,
    ),
    "kolektor": (KOLEKTOR, {"train/good": 15, "test/good": 4, "test/defect": 1}, 1),
    "kolektor2": (KOLEKTOR2, {"train/good": 1, "test/good": 1, "test/defect": 2}, 2),
    "magnetic-tile": (TILE, {"train/good": 8, "test/good": 2, "test/crack": 1}, 1),
}


def pack(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def unpack(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".xz", ""])
def test_each_known_data_set(name, suffix, tmp_path):
    files, counts, n_masks = EXPECTED[name]
    source = tmp_path / f"set{suffix}"
    source = pack(source, files) if suffix else unpack(source, files)
    before = sorted(tmp_path.rglob("*"))
    found = layout(name, source, tmp_path / "out")
    assert found.counts == counts and found.n_masks == n_masks
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert len(written) == sum(counts.values()) + n_masks
    assert [p for p in sorted(tmp_path.rglob("*")) if tmp_path / "out" not in [p, *p.parents]] == (
        before
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_the_package_reads_what_was_laid_out(name, tmp_path):
    files, counts, _ = EXPECTED[name]
    layout(name, pack(tmp_path / "set.zip", files), tmp_path / "out")
    homes = {tmp_path / "out" / key.partition("train/")[0] for key in counts if "train/" in key}
    for home in homes:
        learnt = find_training_images(home)
        assert all(path.parent.name == "good" for path in learnt.paths)
        items = find_labelled(home).items
        defective = [item for item in items if item.is_defective]
        assert defective and all(item.mask is not None for item in defective)
        for item in defective:
            marked = read_mask(item.mask)
            assert marked.shape == read_image(item.path).shape[:2]
            assert marked[8:16, 4:12].all() and marked.sum() == 64


def test_images_are_copied_byte_by_byte(tmp_path):
    layout("mvtec", unpack(tmp_path / "set", MVTEC), tmp_path / "out")
    for name, content in MVTEC.items():
        if "/train/" in name or "/test/" in name:
            assert (tmp_path / "out" / name).read_bytes() == content


def test_one_part_of_a_data_set(tmp_path):
    folder = unpack(tmp_path / "set", MVTEC) / "bottle"
    assert layout("mvtec", folder, tmp_path / "out").counts["train/good"] == 4


def test_the_items_of_a_part_stay_together(tmp_path):
    layout("kolektor", pack(tmp_path / "set.zip", KOLEKTOR), tmp_path / "out")
    parts = [
        {path.name[:5] for path in (tmp_path / "out" / share / "good").iterdir()}
        for share in ("train", "test")
    ]
    assert all(parts) and not parts[0] & parts[1]


def test_the_licence_is_said_first(tmp_path):
    pack(tmp_path / "set.zip", MVTEC)
    out, told = run_command("layout", "mvtec", tmp_path / "set.zip", tmp_path / "out")
    assert told.index("CC BY-NC-SA 4.0: not for commercial use") < told.index("bottle/train/good")
    assert "license.txt: The images are licensed CC BY-NC-SA 4.0. More." in told
    assert out.strip() == str(tmp_path / "out")


@pytest.mark.parametrize("name", [*EXPECTED, "lookout"])
def test_another_folder_is_refused_and_nothing_is_left(name, tmp_path):
    other = unpack(tmp_path / "other", {"a/1.png": picture(0), "b.txt": b"x"})
    with pytest.raises(DataError, match="does not look like"):
        layout(name, other, tmp_path / "out", images=other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other"]


def test_a_damaged_archive_is_refused(tmp_path):
    whole = pack(tmp_path / "set.xz", MVTEC)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises((DataError, OutputError), match=r"damaged|does not look like|unpacked"):
        layout("mvtec", whole, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.xz"]


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "a/../../evil.png"])
def test_names_that_lead_out_of_the_archive_are_refused(name, suffix, tmp_path):
    archive = pack(tmp_path / f"set{suffix}", {**MVTEC, name: picture(0)})
    with pytest.raises(DataError, match="leads out of it"):
        layout("mvtec", archive, tmp_path / "out")
    assert not (tmp_path / "evil.png").exists()


def test_a_table_that_leads_out_of_its_folder_is_refused(tmp_path):
    files = dict(VISA)
    files["split_csv/1cls.csv"] = VISA["split_csv/1cls.csv"].replace(
        b"candle/Data/Images/Normal/0.JPG", b"../../secret.jpg"
    )
    with pytest.raises(DataError, match="leads out of"):
        layout("visa", unpack(tmp_path / "set", files), tmp_path / "out")


@pytest.mark.parametrize("evil", [b"../../evil", b"/tmp/evil", b"C:\\evil"])
def test_a_part_of_the_table_that_leads_out_of_the_target_is_refused(evil, tmp_path):
    files = dict(VISA)
    files["split_csv/1cls.csv"] = VISA["split_csv/1cls.csv"].replace(
        b"candle,train", evil + b",train", 1
    )
    with pytest.raises(DataError, match="leads out of"):
        layout("visa", unpack(tmp_path / "set", files), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


def test_a_table_with_a_byte_order_mark_and_one_that_is_not_text(tmp_path):
    files = dict(VISA)
    files["split_csv/1cls.csv"] = b"\xef\xbb\xbf" + VISA["split_csv/1cls.csv"]
    found = layout("visa", unpack(tmp_path / "a", files), tmp_path / "out")
    assert found.counts["candle/train/good"] == 1
    files["split_csv/1cls.csv"] = b"\xff\xfe\x00"
    with pytest.raises(DataError, match="not text in UTF-8"):
        layout("visa", unpack(tmp_path / "b", files), tmp_path / "other")


def test_a_missing_image_is_named(tmp_path):
    files = {name: content for name, content in VISA.items() if "Normal/1" not in name}
    with pytest.raises(DataError, match=r"Normal/1\.JPG"):
        layout("visa", unpack(tmp_path / "set", files), tmp_path / "out")


def test_a_target_that_is_there_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="is there already"):
        layout("mvtec", unpack(tmp_path / "set", MVTEC), tmp_path / "out")


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(OptionError, match="mvtec, visa, btad"):
        layout("mvtecc", tmp_path, tmp_path / "out")
    with pytest.raises(PathError, match="does not exist"):
        layout("mvtec", tmp_path / "none.zip", tmp_path / "out")


# -------------------------------------------------------------------------- Lookout for Vision


COLOURS = {
    "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0.0},
    "1": {"class-name": "scratch", "hex-color": "#2ca02c", "confidence": 0.0},
    "2": {"class-name": "deep dent", "hex-color": "#1f77b4", "confidence": 0.0},
}


def line(name, label, mask=None, bucket="s3://bucket/images/"):
    entry = {
        "source-ref": f"{bucket}{name}",
        "anomaly-label": label,
        "anomaly-label-metadata": {
            "class-name": "anomaly" if label else "normal",
            "type": "groundtruth/image-classification",
            "confidence": 1,
        },
    }
    if mask:
        entry["anomaly-mask-ref"] = f"s3://bucket/masks/{mask}"
        entry["anomaly-mask-ref-metadata"] = {
            "internal-color-map": COLOURS,
            "type": "groundtruth/semantic-segmentation",
        }
    return json.dumps(entry) + "\n"


def coloured(rgb):
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[8:16, 4:12] = rgb[::-1]
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def project(tmp_path):
    images = unpack(
        tmp_path / "disk",
        {
            **{f"images/ok{n}.jpg": picture(n, ".jpg") for n in range(10)},
            "images/bad1.jpg": picture(20, ".jpg"),
            "images/bad2.jpg": picture(21, ".jpg"),
            "images/bad3.jpg": picture(22, ".jpg"),
            "masks/bad1.png": coloured((0x2C, 0xA0, 0x2C)),
            "masks/bad2.png": coloured((0x1F, 0x77, 0xB4)),
        },
    )
    good = "".join(line(f"ok{n}.jpg", 0) for n in range(8))
    rest = "".join(line(f"ok{n}.jpg", 0) for n in range(8, 10))
    bad = line("bad1.jpg", 1, "bad1.png") + line("bad2.jpg", 1, "bad2.png") + line("bad3.jpg", 1)
    unpack(
        tmp_path / "export",
        {"train.manifest": good.encode(), "test.manifest": (rest + bad).encode()},
    )
    return tmp_path / "export", images


def test_manifests_of_a_project(project, tmp_path):
    export, images = project
    found = layout("lookout", export, tmp_path / "out", images=images)
    assert found.counts == {
        "train/good": 8,
        "test/good": 2,
        "test/scratch": 1,
        "test/deep_dent": 1,
        "test/anomaly": 1,
    }
    assert found.n_masks == 2
    marked = [read_mask(path) for path in (tmp_path / "out" / "ground_truth").rglob("*.png")]
    assert len(marked) == 2
    assert all(one[8:16, 4:12].all() and one.sum() == 64 for one in marked)
    assert len(find_training_images(tmp_path / "out").paths) == 8


def test_one_manifest_is_divided(project, tmp_path):
    export, images = project
    one = tmp_path / "all.manifest"
    one.write_text((export / "train.manifest").read_text() + (export / "test.manifest").read_text())
    found = layout("lookout", one, tmp_path / "out", images=images)
    assert found.counts["train/good"] == 8 and found.counts["test/good"] == 2


def test_images_of_one_name_are_told_apart_by_their_folders(project, tmp_path):
    export, images = project
    unpack(images, {"other/ok0.jpg": picture(99, ".jpg")})
    found = layout("lookout", export, tmp_path / "out", images=images)
    assert found.counts["train/good"] == 8
    copied = tmp_path / "out" / "train" / "good" / "images_ok0.jpg"
    assert copied.read_bytes() == (images / "images" / "ok0.jpg").read_bytes()


def test_images_that_cannot_be_told_apart_are_refused(project, tmp_path):
    export, images = project
    for place in ("a", "b"):
        unpack(images, {f"{place}/ok0.jpg": picture(99, ".jpg")})
    (images / "images" / "ok0.jpg").unlink()
    with pytest.raises(DataError, match="may be"):
        layout("lookout", export, tmp_path / "out", images=images)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("not json\n", "line 1 is not a line of a Lookout manifest"),
        ('{"source-ref": "s3://b/ok0.jpg"}\n', "has no label of an image"),
        (line("none.jpg", 0), "none.jpg is not in"),
        (line("ok0.jpg", 7).replace('"anomaly"', '"odd"'), "neither normal nor anomaly"),
    ],
)
def test_lines_that_cannot_be_used_are_named(project, text, told, tmp_path):
    _, images = project
    (tmp_path / "one.manifest").write_text(text)
    with pytest.raises(DataError, match=told):
        layout("lookout", tmp_path / "one.manifest", tmp_path / "out", images=images)


def test_it_asks_for_the_images(project, tmp_path):
    with pytest.raises(OptionError, match="--images"):
        layout("lookout", project[0], tmp_path / "out")


def test_every_data_set_says_its_licence():
    for known in DATA_SETS.values():
        assert known.title and known.licence
