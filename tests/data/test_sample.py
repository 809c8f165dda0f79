import json
import shutil

import cv2
import numpy as np
import pytest

from anomaly_ad.data.rendered import defect_size
from anomaly_ad.data.sample import DEFECTS, SMALL_DEFECTS, render_part, render_sample
from anomaly_ad.errors import OptionError, OutputError

SMALL = {"n_train": 2, "n_test_good": 1, "n_per_defect": 2, "size": (96, 96)}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return render_sample(tmp_path_factory.mktemp("sample") / "set", **SMALL)


def contents(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_layout(rendered):
    expected = {"sample.json", "train/good/000.jpg", "train/good/001.jpg", "test/good/000.jpg"}
    for defect in DEFECTS:
        for name in ("000", "001"):
            expected |= {f"test/{defect}/{name}.jpg", f"ground_truth/{defect}/{name}_mask.png"}
    assert set(contents(rendered)) == expected
    mask = cv2.imread(str(rendered / "ground_truth/dent/000_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (96, 96) and set(np.unique(mask)) == {0, 255}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_and_another_others(rendered, tmp_path):
    again = contents(render_sample(tmp_path / "again", **SMALL))
    assert again == contents(rendered)
    other = contents(render_sample(tmp_path / "other", seed=1, **SMALL))
    assert not {n for n, data in other.items() if data == again[n] and n.endswith("jpg")}
    images = [data for name, data in again.items() if name.endswith("jpg")]
    assert len(set(images)) == len(images)


@pytest.mark.slow
def test_an_image_does_not_depend_on_how_many_there_are(rendered, tmp_path):
    fewer = render_sample(tmp_path / "fewer", **{**SMALL, "n_train": 1, "n_test_good": 0})
    name = "train/good/000.jpg"
    assert (fewer / name).read_bytes() == (rendered / name).read_bytes()


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("severity", [pytest.param(1.0, marks=pytest.mark.slow), 0.5, 0.0])
@pytest.mark.parametrize("size", [pytest.param((128, 128), marks=pytest.mark.slow), (80, 160)])
def test_the_mask_covers_what_differs(defect, severity, size):
    good, none = render_part(5, size=size)
    bad, mask = render_part(5, defect=defect, severity=severity, size=size)
    assert good.shape == bad.shape == (*size, 3) and good.dtype == bad.dtype == np.uint8
    assert not none.any() and mask.shape == size and mask.any()
    difference = np.abs(bad.astype(int) - good).max(axis=2)
    assert difference[mask == 0].mean() < 0.5
    assert difference[mask == 0].max() <= 12  # specks and soft shadow ends
    assert difference[mask > 0].mean() > max(1.5, 5 * difference[mask == 0].mean())


@pytest.mark.slow
@pytest.mark.parametrize("defect", ["scratch", "dent", "stain", "missing_piece"])
def test_severity_goes_from_subtle_to_obvious(defect):
    changed = []
    for severity in (0.0, 1.0):
        total = 0.0
        for seed in range(3):
            good, _ = render_part(seed, size=(128, 128))
            bad, mask = render_part(seed, defect=defect, severity=severity, size=(128, 128))
            total += np.abs(bad.astype(int) - good)[mask > 0].sum()
        changed.append(total)
    assert changed[1] > 2 * changed[0]


def test_the_further_a_wrong_part_is_from_the_right_one_the_more_obvious():
    masks = [
        render_part(0, defect="wrong_part", severity=s, size=(96, 96))[1] for s in (1, 0.8, 0.2, 0)
    ]
    areas = [np.count_nonzero(mask) for mask in masks]
    assert areas[0] > areas[1] > 1.5 * areas[2] > 1.5 * areas[3]


@pytest.mark.slow
def test_the_set_holds_what_render_part_gives(rendered, monkeypatch, tmp_path):
    """Every image has its own seed; masks are those of their images."""
    calls = []

    def watched(seed, **options):
        calls.append((seed, render_part(seed, **options)))
        return calls[-1][1]

    monkeypatch.setattr("anomaly_ad.data.sample.render_part", watched)
    root = render_sample(tmp_path / "set", **SMALL)
    assert len({seed for seed, _ in calls}) == len(calls) == 13
    image, mask = calls[3][1]
    written = cv2.imread(str(root / f"test/{DEFECTS[0]}/000.jpg"))[..., ::-1].astype(int)
    assert np.abs(written - image).mean() < 4
    name = f"ground_truth/{DEFECTS[0]}/000_mask.png"
    assert (cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED) == mask).all()


def test_good_parts_vary_but_stay_the_same_part():
    images = [render_part(seed, size=(96, 96))[0].astype(int) for seed in range(4)]
    for n, image in enumerate(images[1:]):
        assert 2 < np.abs(image - images[n]).mean() < 40


def test_any_pose_moves_the_part_more():
    def spread(pose):
        images = [render_part(seed, size=(96, 96), pose=pose)[0] for seed in range(6)]
        return np.std(images, axis=0).mean()

    assert spread("any") > 1.5 * spread("small")


def test_a_second_call_does_nothing(rendered):
    before = {path: path.stat().st_mtime_ns for path in rendered.rglob("*")}
    assert render_sample(rendered, **SMALL) == rendered
    assert {path: path.stat().st_mtime_ns for path in rendered.rglob("*")} == before


def test_a_set_with_other_arguments_or_other_files_is_left_alone(rendered, tmp_path):
    with pytest.raises(OptionError, match="other arguments"):
        render_sample(rendered, **{**SMALL, "seed": 9})
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OptionError, match="other files"):
        render_sample(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_set_that_lost_a_file_is_not_taken_for_complete(rendered, tmp_path):
    root = shutil.copytree(rendered, tmp_path / "set")
    (root / "test/dent/001.jpg").unlink()
    with pytest.raises(OptionError, match=r"1 of its files are gone, test/dent/001\.jpg"):
        render_sample(root, **SMALL)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(OptionError, match="is a file"):
        render_sample(tmp_path / "set", **SMALL)
    with pytest.raises(OutputError, match="cannot be written"):
        render_sample(tmp_path / "set" / "within", **SMALL)


def interrupt(monkeypatch, root, after, **options):
    """Render a set into `root`, but be interrupted after some images."""
    calls = 0

    def interrupted(*arguments, **settings):
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt
        return render_part(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("anomaly_ad.data.sample.render_part", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_sample(root, **options)
    assert not (root / "sample.json").exists()


@pytest.mark.slow
def test_an_interrupted_set_is_rendered_again(rendered, tmp_path, monkeypatch):
    interrupt(monkeypatch, tmp_path / "set", after=3, **SMALL)
    assert contents(render_sample(tmp_path / "set", **SMALL)) == contents(rendered)
    assert json.loads((tmp_path / "set" / "sample.json").read_text())["seed"] == 0


@pytest.mark.slow
def test_an_interrupted_larger_set_leaves_nothing_but_what_the_user_made(
    rendered, tmp_path, monkeypatch
):
    interrupt(monkeypatch, tmp_path / "set", after=4, **{**SMALL, "n_train": 5})
    (tmp_path / "set" / "notes.txt").write_text("mine")
    found = contents(render_sample(tmp_path / "set", **SMALL))
    assert found.pop("notes.txt") == b"mine"
    assert found == contents(rendered)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 0}, "n_train is a whole number from 1"),
        ({"n_test_good": -1}, "n_test_good"),
        ({"n_per_defect": 2.5}, "n_per_defect"),
        ({"size": (32, 64)}, r"\(height, width\)"),
        ({"size": 64}, r"\(height, width\)"),
        ({"size": (64, 64, 3)}, r"\(height, width\)"),
        ({"size": (96.0, 96.0)}, r"\(height, width\)"),
        ({"n_train": True}, "n_train"),
        ({"pose": "upright"}, "small, any"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arguments_of_the_set(tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        render_sample(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"defect": "rust"}, "scratch, dent, stain, missing_piece, wrong_part"),
        ({"severity": 2}, "from 0 to 1"),
        ({"severity": float("nan")}, "from 0 to 1"),
        ({"severity": "high"}, "from 0 to 1"),
        ({"pose": None}, "small, any"),
    ],
)
def test_arguments_of_a_part(options, message):
    with pytest.raises(OptionError, match=message):
        render_part(0, **options)


# ------------------------------------------------------------------- 12 bits, small defects


@pytest.mark.parametrize("defect", [None, "dent"])
def test_12_bits_are_the_same_photograph(defect):
    eight, mask = render_part(3, defect=defect, severity=0.5, size=(96, 120))
    twelve, same = render_part(3, defect=defect, severity=0.5, size=(96, 120), depth=12)
    assert twelve.dtype == np.uint16 and twelve.max() <= 4095 and twelve.max() > 3000
    assert np.abs(twelve / 16 - eight).max() <= 1
    assert len(np.unique(twelve)) > 2 * len(np.unique(eight))
    np.testing.assert_array_equal(same, mask)


@pytest.mark.parametrize("defect", SMALL_DEFECTS)
@pytest.mark.parametrize("severity", [0.0, 1.0])
def test_small_defects_have_the_length_that_is_asked_for(defect, severity):
    given = {"defect": defect, "severity": severity, "size": (400, 600), "defect_px": (12, 20)}
    good, _ = render_part(8, size=(400, 600))
    bad, mask = render_part(8, **given)
    assert defect_size(mask > 0) == pytest.approx(20 if severity else 12, abs=2)
    difference = np.abs(bad.astype(int) - good).max(axis=2)
    assert difference[mask == 255].mean() > 10
    assert difference[cv2.dilate(mask, np.ones((15, 15))) == 0].max() == 0
    deep, _ = render_part(8, depth=12, **given)
    assert np.abs(deep / 16 - bad).max() <= 1.5


def test_a_set_of_12_bits_with_small_defects(tmp_path):
    given = {"n_train": 1, "n_test_good": 0, "n_per_defect": 1, "size": (200, 240)}
    root = render_sample(tmp_path / "set", depth=12, defect_px=(12, 20), **given)
    files = {path for path in contents(root) if path.endswith(".tif")}
    assert files == {"train/good/000.tif", *(f"test/{kind}/000.tif" for kind in SMALL_DEFECTS)}
    image = cv2.imread(str(root / "train/good/000.tif"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint16 and image.shape == (200, 240, 3)
    assert json.loads((root / "sample.json").read_text())["defect_px"] == [12, 20]
    assert render_sample(root, depth=12, defect_px=(12, 20), **given) == root
    with pytest.raises(OptionError, match="holds a sample set with other arguments"):
        render_sample(root, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 10}, "depth is 8 or 12 bits. Received: 10"),
        ({"depth": True}, "depth is 8 or 12 bits"),
        ({"defect_px": (1, 20)}, "defect_px is"),
        ({"defect_px": (20, 12)}, "defect_px is"),
        ({"defect_px": 12}, "Received: 12"),
        ({"defect_px": ("a", 3)}, "Received: .'a', 3"),
        ({"defect": "stain", "defect_px": (12, 20)}, "defect is one of scratch, spot, blotch"),
    ],
)
def test_arguments_of_depth_and_length(given, message):
    with pytest.raises(OptionError, match=message):
        render_part(0, **given)
