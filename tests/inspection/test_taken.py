"""Regions, poses and light through a whole model: learnt, recorded, predicted, evaluated."""

import json

import cv2
import numpy as np
import pytest
from conftest import run_command, write_image

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, DataError, OptionError
from anomaly_ad.drawing.pictures import EDGE_COLOUR
from anomaly_ad.errors import PoseError
from anomaly_ad.evaluation.rendered import RenderedSource
from anomaly_ad.images import Framing, Photograph
from anomaly_ad.images.pose import learn_pose
from anomaly_ad.images.roi import mask_of, resolve_region
from anomaly_ad.inspection.records import read_records

SIZE = 96
SMALL = {"img_size": (64, 64), "patch_size": 16}


def scene(seed, *, defect=None, angle=None, part=True):
    """An elongated part on a table; a defect on the "part", or on the "table"."""
    random = np.random.default_rng(seed)
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    middle = 48 + random.integers(-2, 3, 2)
    turn = np.radians(random.uniform(0, 360) if angle is None else angle)
    along = np.array([np.cos(turn), np.sin(turn)])
    ends = [tuple(int(v) for v in np.rint(middle + t * along)) for t in (-24, 24)]
    if part:
        cv2.line(image, *ends, (170, 165, 160), 12, cv2.LINE_AA)
        cv2.circle(image, ends[0], 13, (170, 165, 160), -1, cv2.LINE_AA)
    if defect == "part":
        cv2.circle(image, tuple(int(v) for v in middle), 4, (60, 40, 40), -1)
    if defect == "table":
        cv2.circle(image, (8, 8), 5, (220, 220, 220), -1)
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def write(folder, count, first=0, **options):
    for seed in range(first, first + count):
        write_image(folder / f"{seed:03d}.png", scene(seed, **options))
    return folder


@pytest.fixture(scope="module")
def lying(tmp_path_factory):
    """A folder of parts that lie alike, with a labelled test set and masks."""
    root = tmp_path_factory.mktemp("lying")
    write(root / "train" / "good", 20, angle=0)
    write(root / "test" / "good", 3, 100, angle=0)
    for kind, at, radius in (("part", (48, 48), 4), ("table", (8, 8), 5)):
        write(root / "test" / kind, 3, 200, angle=0, defect=kind)
        mask = cv2.circle(np.zeros((SIZE, SIZE), np.uint8), at, radius, 255, -1)
        for seed in range(200, 203):
            write_image(root / "ground_truth" / kind / f"{seed:03d}_mask.png", mask[..., None])
    return root


@pytest.fixture(scope="module")
def in_region(lying, tmp_path_factory):
    """The directory of a model with a region around the part. Tests must not change it."""
    home = tmp_path_factory.mktemp("models")
    corners = [(8, 20), (88, 20), (88, 76), (8, 76), (4, 48)]
    AD("padim", lying, save_path=home, roi=corners, **SMALL).train()
    return home / "model"


@pytest.fixture(scope="module")
def posed(tmp_path_factory):
    """The directory of a model whose parts lie in any rotation. Tests must not change it."""
    home = tmp_path_factory.mktemp("posed")
    folder = write(home / "good", 24)
    AD("padim", folder, save_path=home, align="auto", img_size=(64, 96), patch_size=16).train()
    return home / "model"


def test_what_lies_outside_the_region_changes_nothing(in_region):
    ad = AD(in_region)
    good, table, part = (
        ad.predict(scene(300, angle=0, defect=defect), save=False)
        for defect in (None, "table", "part")
    )
    assert good.raw_score == table.raw_score and not table.is_anomalous
    assert part.is_anomalous and len(part.boxes)
    for x1, y1, x2, y2 in part.boxes.tolist():
        assert 0 <= x1 < x2 <= SIZE and 15 <= y1 < y2 <= 80


def test_the_edge_of_the_region_is_drawn(in_region, tmp_path):
    ad = AD(in_region)
    path = write_image(tmp_path / "in" / "a.png", scene(300, angle=0))
    ad.predict(path, tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("a*.png")
    picture = cv2.imread(str(file))[..., ::-1].astype(int)
    edge = np.abs(picture - EDGE_COLOUR).sum(axis=2) < 60
    assert edge.sum() > 60 and not edge[30:66, 20:80].any() and not edge[:10].any()


def test_masks_count_inside_alone(in_region, lying):
    found = AD(in_region).evaluate(lying / "test")
    assert found.n_outside == 3 and found.n_partly_outside == 0
    assert "3 images lie wholly outside the region" in str(found)
    by_kind = {kind.name: kind for kind in found.kinds}
    assert by_kind["part"].pixel_auroc > 0.9 and by_kind["table"].pixel_auroc is None


def test_a_region_is_part_of_the_model(in_region, lying, tmp_path):
    plan = AD(in_region).model.manifest.plan
    assert mask_of(plan.framing.region).shape == (SIZE, SIZE)
    stdout, _ = run_command("info", in_region)
    assert "a region of it" in stdout
    with pytest.raises(OptionError, match="has its own roi"):
        AD(in_region, roi=(0, 0, 20, 20))
    small = write_image(tmp_path / "small.png", scene(1)[:80])
    (found,) = AD(in_region).predict([small], save=False)
    assert "80x96 pixels" in found.error and "drawn for 96x96" in found.error


@pytest.mark.slow
def test_the_command_line_takes_regions(lying, tmp_path):
    arguments = ["--save-path", tmp_path, "--img-size", 64, 64, "--patch-size", 16, "--no-review"]
    drawn = tmp_path / "roi.json"
    drawn.write_text(
        json.dumps({"image_size": [96, 96], "inspect": [[(8, 20), (88, 20), (48, 76)]]})
    )
    for number, region in enumerate(("8,20,88,76", drawn, "part")):
        stdout, _ = run_command("train", lying, "--roi", region, "--name", f"m{number}", *arguments)
        framing = AD(stdout.strip()).model.manifest.plan.framing
        assert framing.has_region and framing.only_part == (region == "part")
    _, stderr = run_command("train", lying, "--roi", "8,20,200,76", *arguments, code=2)
    assert "must lie within" in stderr


def test_bad_options_are_refused_before_training(lying):
    for options in ({"align": "turn"}, {"normalize": 1}, {"roi": (9, 9, 1, 1)}, {"ignore": 3}):
        with pytest.raises(OptionError, match=next(iter(options))):
            AD("padim", lying, **options)


def test_training_images_of_another_size_are_listed(tmp_path):
    folder = write(tmp_path / "good", 40, angle=0)
    write_image(folder / "001.png", scene(0, angle=0)[:90])  # not among those that are looked at
    with pytest.raises(DataError, match=r"1 of 40 (?s:.*)001\.png has 90x96"):
        AD("padim", folder, save_path=tmp_path, roi=(8, 20, 88, 76), **SMALL).train()


def test_parts_in_any_rotation(posed):
    ad = AD(posed)
    framing = ad.model.manifest.plan.framing
    assert framing.pose.turns
    bad = [ad.predict(scene(400 + n, defect="part"), save=False) for n in range(6)]
    good = [ad.predict(scene(500 + n), save=False) for n in range(6)]
    assert min(p.raw_score for p in bad) > max(p.raw_score for p in good)
    assert all(p.is_anomalous and p.reason is None for p in bad)
    for prediction in bad:
        (x1, y1, x2, y2) = prediction.regions[0].box
        assert x1 - 8 <= 48 <= x2 + 8 and y1 - 8 <= 48 <= y2 + 8


def test_an_image_out_of_pose_is_anomalous_and_says_why(posed, tmp_path):
    ad = AD(posed)
    folder = write(tmp_path / "in", 2)
    write_image(folder / "empty.png", scene(9, part=False))
    found = {p.path[-9:]: p for p in ad.predict(folder, tmp_path / "out")}
    empty = found.pop("empty.png")
    assert empty.is_anomalous and empty.error is None and 0.99 < empty.score < 1
    assert empty.reason == "no part stands out from the background"
    assert all(p.reason is None and not p.is_anomalous for p in found.values())
    assert len(empty.boxes) == 0 and empty.regions == () and empty.anomaly_map is None
    lines = {line["path"][-9:]: line for line in read_records(tmp_path / "out/predictions.jsonl")}
    assert lines["empty.png"]["reason"] == empty.reason
    assert "no part stands out" in (tmp_path / "out/predictions.csv").read_text()
    assert ad.predict(scene(9, part=False), save=False, thresh=1.0).is_anomalous
    ad.evaluate([*folder.iterdir()], labels=[0, 0, 1])
    assert ad.test_img(folder / "empty.png") is not None


def test_training_images_without_a_part_are_listed(tmp_path):
    folder = write(tmp_path / "good", 40)
    write_image(folder / "012.png", scene(0, part=False))
    with pytest.raises(DataError, match=r"012\.png: no part stands out"):
        AD("padim", folder, save_path=tmp_path, align="rigid", patch_size=16).train()


@pytest.mark.slow
def test_retraining_and_adding_keep_pose_and_region(posed, tmp_path):
    ad = AD(posed, save_path=tmp_path, name="more")
    framing = ad.model.manifest.plan.framing
    ad.add_images(write(tmp_path / "more images", 4, 700))
    assert ad.model.manifest.plan.framing == framing


@pytest.mark.slow
@pytest.mark.parametrize("normalize", ["gain", "flatfield"])
def test_light_is_part_of_the_model(lying, tmp_path, normalize):
    ad = AD("padim", lying, save_path=tmp_path, normalize=normalize, **SMALL).train()
    plain = AD("padim", lying, save_path=tmp_path, name="plain", **SMALL).train()
    light = AD(tmp_path / "model").model.manifest.plan.framing.light
    assert (light.field is None) == (normalize == "gain")
    image = scene(300, angle=0)
    if normalize == "gain":
        darker = (image * 0.85).astype(np.uint8)
        changes = [
            abs(one.predict(darker, save=False).score - one.predict(image, save=False).score)
            for one in (ad, plain)
        ]
        assert changes[0] < changes[1]
    assert not ad.predict(image, save=False).is_anomalous


def test_rendered_defects_lie_where_is_inspected(in_region, lying):
    framing = AD(in_region).model.manifest.plan.framing
    path = lying / "test" / "good" / "100.png"
    inspected = Photograph.read(path, framing).take().inspected()
    for seed in range(6):
        source = RenderedSource(
            "a", path, None, path, kind="spot", size=5.0, contrast=90.0, seed=(seed,)
        )
        changed = (source.read(framing).pixels != Photograph.read(path, framing).pixels).any(axis=2)
        assert changed.any() and inspected[changed].mean() > 0.9  # its edge is soft


def test_broken_images_are_listed_whatever_pose_is_asked_for(tmp_path):
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    for align in ("auto", "translation", "rigid"):
        with pytest.raises(DataError, match="12 of 12"):
            AD(
                "padim", tmp_path, save_path=tmp_path, align=align, normalize="gain", **SMALL
            ).train()


def test_a_part_outside_the_region_is_out_of_pose():
    images = [scene(n, angle=0) for n in range(12)]
    pose, _ = learn_pose("translation", images)
    region = resolve_region((0, 0, 12, 12), None, [(SIZE, SIZE)])
    way = Framing.new(64, 64, 3, region=region, pose=pose)
    with pytest.raises(PoseError, match="nothing of it lies in the region"):
        way.take(images[0])
