import json

import cv2
import numpy as np
import pytest

from anomaly_ad.errors import OptionError
from anomaly_ad.sample import DEFECTS, render_part, render_sample

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


def test_the_same_seed_gives_the_same_files_and_another_others(rendered, tmp_path):
    again = contents(render_sample(tmp_path / "again", **SMALL))
    assert again == contents(rendered)
    other = contents(render_sample(tmp_path / "other", seed=1, **SMALL))
    assert not {n for n, data in other.items() if data == again[n] and n.endswith("jpg")}
    images = [data for name, data in again.items() if name.endswith("jpg")]
    assert len(set(images)) == len(images)


def test_an_image_does_not_depend_on_how_many_there_are(rendered, tmp_path):
    fewer = render_sample(tmp_path / "fewer", **{**SMALL, "n_train": 1, "n_test_good": 0})
    name = "train/good/000.jpg"
    assert (fewer / name).read_bytes() == (rendered / name).read_bytes()


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("severity", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("size", [(128, 128), (80, 160)])
def test_the_mask_covers_what_differs(defect, severity, size):
    good, none = render_part(5, size=size)
    bad, mask = render_part(5, defect=defect, severity=severity, size=size)
    assert good.shape == bad.shape == (*size, 3) and good.dtype == bad.dtype == np.uint8
    assert not none.any() and mask.shape == size and mask.any()
    difference = np.abs(bad.astype(int) - good).max(axis=2)
    assert difference[mask == 0].mean() < 1.5
    assert difference[mask > 0].mean() > 3 * difference[mask == 0].mean() + 1


@pytest.mark.parametrize("defect", ["scratch", "dent", "stain", "missing_piece"])
def test_severity_goes_from_subtle_to_obvious(defect):
    changed = []
    for severity in (0.0, 1.0):
        total = 0.0
        for seed in range(4):
            good, _ = render_part(seed, size=(128, 128))
            bad, mask = render_part(seed, defect=defect, severity=severity, size=(128, 128))
            total += np.abs(bad.astype(int) - good)[mask > 0].sum()
        changed.append(total)
    assert changed[1] > 2 * changed[0]


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


def test_an_interrupted_set_is_rendered_anew(rendered, tmp_path, monkeypatch):
    calls = 0

    def interrupted(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return render_part(*arguments, **options)

    monkeypatch.setattr("anomaly_ad.sample.render_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render_sample(tmp_path / "set", **SMALL)
    assert not (tmp_path / "set" / "sample.json").exists()
    monkeypatch.undo()
    assert contents(render_sample(tmp_path / "set", **SMALL)) == contents(rendered)
    assert json.loads((tmp_path / "set" / "sample.json").read_text())["seed"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_train": 0}, "n_train is a whole number from 1"),
        ({"n_test_good": -1}, "n_test_good"),
        ({"n_per_defect": 2.5}, "n_per_defect"),
        ({"size": (32, 64)}, r"\(height, width\)"),
        ({"size": 64}, r"\(height, width\)"),
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
    [({"defect": "rust"}, "scratch, dent"), ({"severity": 2}, "from 0 to 1")],
)
def test_arguments_of_a_part(options, message):
    with pytest.raises(OptionError, match=message):
        render_part(0, **options)
