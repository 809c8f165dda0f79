"""What every detector must do, on more configurations than its default.

The methods of the examples are tested along. For one of your own, name its file:

    ANOMALY_AD_METHODS=my_method.py python -m pytest tests/methods/test_common.py -k my_name
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_part, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, DataError
from anomaly_ad.errors import PoseError
from anomaly_ad.images import Framing, ImageSet
from anomaly_ad.images.pose import learn_pose
from anomaly_ad.images.roi import resolve_region
from anomaly_ad.images.tiles import Tiles
from anomaly_ad.methods import registry
from anomaly_ad.methods.features import FeatureSet
from anomaly_ad.model.plan import Plan
from anomaly_ad.runtime.convert import prove_parity, run_graph, to_openvino
from anomaly_ad.runtime.engine import Engine
from anomaly_ad.training.steps import build, learn

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = [*EXAMPLES.glob("my_*_method.py"), *os.environ.get("ANOMALY_AD_METHODS", "").split()]


def registered(files):
    """The methods that files register, as long as the files run; other tests do not see them."""
    before = dict(registry.PRESETS), dict(registry._registered)
    for file in files:
        runpy.run_path(str(file), run_name="method")
    added = [
        {name: now[name] for name in now if name not in then}
        for now, then in zip((registry.PRESETS, registry._registered), before, strict=True)
    ]
    for now, new in zip((registry.PRESETS, registry._registered), added, strict=True):
        for name in new:
            del now[name]
    return added


ADDED, CLASSES = registered(FILES)
PRESETS = {**registry.PRESETS, **ADDED}
STATISTICAL = [name for name, preset in PRESETS.items() if preset.is_statistical]
ADDS_IMAGES = [name for name in STATISTICAL if PRESETS[name].adds_images]
TAKEN, TILES = "in a region and a pose", "in tiles"
CONFIGURATIONS = {
    "gray": Framing(96, 96, 1),
    "colour": Framing(96, 96, 3),
    "not square, no multiple of the stride": Framing(70, 57, 3),
    "padded": Framing.new(80, 112, 1, "pad"),
    TAKEN: Framing.new(
        80,
        80,
        3,
        region=resolve_region([(6, 6), (90, 6), (90, 88), (30, 88), (6, 70)], None, [(96, 96)]),
        pose=learn_pose("translation", (draw_part(n, size=96) for n in range(9)))[0],
    ),
}
IN_TILES = Framing.new(64, 64, 3, tiles=Tiles((96, 96), 64, 64, 2, 2))
# One of each family stands for the others in the rest of the configurations. The first of a method
# is its fast test; the others are slow ones.
FEWER = {
    "AD0": [TAKEN, "colour", "padded"],
    "AD1": ["gray", TAKEN],
    "vae": ["padded", TAKEN],
    "lake": ["not square, no multiple of the stride", "padded", TAKEN],
    "dfm": ["colour", "not square, no multiple of the stride", "padded", TAKEN],
    "dfkde": [TAKEN, "gray", "padded"],
    "variances": ["padded", TAKEN],
    "feature_autoencoder": ["colour", "padded", TAKEN],
    "rd": ["not square, no multiple of the stride", "padded", TAKEN],
    "cfa": ["not square, no multiple of the stride", "padded", TAKEN],
    "simplenet": [TAKEN, "gray", "padded"],
    "fastflow": ["gray", "padded", TAKEN],
    "cflow": ["padded", "not square, no multiple of the stride", TAKEN],
    "stfpm": ["not square, no multiple of the stride", "gray", "padded", TAKEN],
    "draem": ["padded", "not square, no multiple of the stride", TAKEN],
    "efficientad": ["not square, no multiple of the stride", "padded", TAKEN],
    "ganomaly": ["not square, no multiple of the stride", "padded"],
    "ensemble": ["padded", "colour", TAKEN],
}
STAND_FOR = ("AD1", "vae")  # AD0 in gray, and half of lake: these stand for them
EPOCHS = {
    "rd": 12,
    "simplenet": 40,
    "cfa": 12,
    "fastflow": 10,
    "cflow": 10,
    "stfpm": 20,
    "draem": 20,
    "efficientad": 20,
    "ganomaly": 14,
}  # elsewhere 20, in tiles 8
# Of flows, TensorFlow's tracing of each step takes most of the time.
SMALLER = {"fastflow": {"steps": 3}, "cflow": {"steps": 3}}
TOO_LITTLE = ("ganomaly",)  # learnt of tiles in a test's time: whether a defect shows is luck
FAST_IN_TILES = ("patchcore", "dfkde", "AD0")  # a statistical, an image-level, a gradient method


def cases_of(names):
    """Methods and how they take images, for `case`."""
    framed = [
        pytest.param(
            (name, CONFIGURATIONS[label]),
            id=f"{name}-{label}",
            marks=[pytest.mark.slow] * (number > 0 or name in STAND_FOR),
        )
        for name in names
        for number, label in enumerate(FEWER.get(name, reversed(CONFIGURATIONS)))
    ]
    in_tiles = [
        pytest.param(
            (name, IN_TILES),
            id=f"{name}-{TILES}",
            marks=[pytest.mark.slow] * (name not in FAST_IN_TILES),
        )
        for name in names
        if PRESETS[name].in_tiles is not None and name not in TOO_LITTLE
    ]
    return framed + in_tiles


def pytest_generate_tests(metafunc):
    """The tests of a class are of its methods."""
    if metafunc.cls is not None and "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases_of(metafunc.cls.NAMES), indirect=True, scope="class")
    elif metafunc.cls is not None:
        # AD1 is AD0 in gray, which all are in these.
        names = [name for name in metafunc.cls.NAMES if name != "AD1"]
        metafunc.parametrize("name", names)


@pytest.fixture(scope="module", autouse=True)
def methods_from_outside():
    registry.PRESETS.update(ADDED)
    registry._registered.update(CLASSES)
    yield
    for name in ADDED:
        del registry.PRESETS[name], registry._registered[name]


def parameters_of(name):
    return dict(registry.preset(name).parameters) | SMALLER.get(name, {})


def fitted(name, framing, seed=0, epochs=4):
    plan = Plan(name, parameters_of(name), framing, 16, seed, "f32", 0.01)
    detector = build(plan)
    if getattr(detector, "least_per_epoch", 0):
        detector.least_per_epoch = 32  # four steps: what is tested is not how well it learns
    images = ImageSet(np.stack([framing.views(draw_part(n, size=96)) for n in range(23)]))
    before = images[slice(0, 23)]
    learn(detector, images, plan, epochs=epochs)
    np.testing.assert_array_equal(images[slice(0, 23)], before)
    return detector


@pytest.fixture(scope="class")
def case(request):
    name, framing = request.param
    epochs = EPOCHS.get(name, 20 if framing.tiles is None else 8)
    detector = fitted(name, framing, epochs=epochs)
    return name, framing, detector, detector.graph()


run = run_graph


def images_of(framing, *, defect=False, count=3):
    drawn = (draw_part(500 + n, defect=defect, size=96) for n in range(count))
    return np.concatenate([framing.views(image) for image in drawn])


def merged(framing, outputs):
    """Outputs for the views of images -> those of each image."""
    starts = range(0, len(outputs["score"]), framing.n_views)
    parts = [slice(start, start + framing.n_views) for start in starts]
    each = ({name: values[part] for name, values in outputs.items()} for part in parts)
    return [framing.merge(one, range(framing.n_views)) for one in each]


def apart(one, other):
    """How far two states differ: the mean over an array, of the array where it is largest.

    Where values are larger than 1, as variances may be, it is relative to them.
    """

    def mean(values):
        return float(np.mean(np.abs(values)))

    return max(mean(np.subtract(one[key], other[key])) / max(1, mean(one[key])) for key in one)


class OfEachMethod:
    """What every one of `NAMES` must do. In classes, which workers share (--dist loadscope)."""

    def test_shapes_and_types(self, case):
        _, framing, _, graph = case
        images = images_of(framing)
        out, count = run(graph, images), len(images)
        assert out["score"].shape == (count,) and out["score"].dtype == np.float32
        if "anomaly_map" in out:
            assert out["anomaly_map"].shape == (count, *framing.size)
            assert out["anomaly_map"].dtype == np.float32
        if "reconstruction" in out:
            assert out["reconstruction"].shape == (count, *framing.shape)
            assert out["reconstruction"].min() >= 0 and out["reconstruction"].max() <= 255

    def test_finite_on_constant_and_noise_images(self, case):
        _, framing, _, graph = case
        if framing.looks_for_part:
            with pytest.raises(PoseError):  # it never comes to the model
                framing.take(np.full((96, 96, 3), 128, np.uint8))
            return
        size = (96, 90) if framing.tiles is None else framing.tiles.photograph
        noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        constant = [np.full((*size, 3), value, np.uint8) for value in (0, 128, 255)]
        views = np.concatenate([framing.views(image) for image in (noise, *constant)])
        for values in run(graph, views).values():
            assert np.isfinite(values).all()

    def test_a_planted_defect_scores_higher_and_the_map_peaks_on_it(self, case):
        _, framing, _, graph = case
        good, bad = images_of(framing), images_of(framing, defect=True)
        good_out, bad_out = (merged(framing, run(graph, images)) for images in (good, bad))
        assert min(one["score"] for one in bad_out) > max(one["score"] for one in good_out)
        changed = np.abs(bad.astype(int) - good).max(axis=-1).astype(np.float32)
        changed = merged(framing, {"score": np.zeros(len(changed)), "anomaly_map": changed})
        for one, different in zip(bad_out, changed, strict=True):
            if "anomaly_map" not in one:
                continue
            anomaly_map = one["anomaly_map"]
            assert anomaly_map.shape == framing.map_size
            ys, xs = np.nonzero(different["anomaly_map"] > 60)
            y, x = np.unravel_index(np.argmax(anomaly_map), anomaly_map.shape)
            assert ys.min() - 6 <= y <= ys.max() + 6 and xs.min() - 6 <= x <= xs.max() + 6

    def test_a_batch_equals_single_images(self, case):
        _, framing, _, graph = case
        images = images_of(framing, defect=True)
        together = run(graph, images)
        for n in range(len(images)):
            alone = run(graph, images[n : n + 1])
            for name in together:
                np.testing.assert_allclose(together[name][n], alone[name][0], rtol=1e-4, atol=1e-3)

    def test_a_score_does_not_depend_on_what_else_is_in_the_batch(self, case):
        _, framing, _, graph = case
        images = images_of(framing)[: framing.n_views]
        others = {"good": images_of(framing, count=2), "defective": images_of(framing, defect=True)}
        others["noise"] = np.random.default_rng(1).integers(0, 256, images.shape, dtype=np.uint8)
        others["noise"][..., framing.channels :] = images[..., framing.channels :]
        alone = run(graph, images)
        for neighbours in others.values():
            together = run(graph, np.concatenate([neighbours, images]))
            for name, values in alone.items():
                np.testing.assert_allclose(
                    together[name][-len(images) :], values, rtol=1e-4, atol=1e-3
                )

    def test_the_converted_graph_is_the_trained_one(self, case):
        _, framing, _, graph = case
        model = to_openvino(graph)
        images = np.concatenate([images_of(framing), images_of(framing, defect=True)])
        parity = prove_parity(graph, Engine(model), images)
        assert set(parity.deviation) == {output.get_any_name() for output in model.outputs}
        names = [each.get_any_name() for each in model.inputs]
        assert names == (["images", "inside"] if framing.has_inside else ["images"])
        assert all(each.partial_shape[0].is_dynamic for each in model.inputs)

    def test_what_lies_outside_is_not_scored(self, case):
        """The map is zero there, and its largest value is one of the photograph."""
        _, framing, _, graph = case
        assert len(graph.inputs) == 1 + framing.has_inside
        if not framing.has_inside:
            return
        views = images_of(framing, defect=True)
        assert 0 < views[..., -1].mean() < 1
        out = run(graph, views)
        if "anomaly_map" in out:
            assert (out["anomaly_map"][views[..., -1] == 0] == 0).all()
            found = out["anomaly_map"].max(axis=(1, 2))
            inner = np.where(views[..., -1] > 0, out["anomaly_map"], -np.inf).max(axis=(1, 2))
            np.testing.assert_array_equal(found, inner)

    def test_state_restores_the_detector(self, case):
        name, framing, detector, graph = case
        seed = 0 if name in STATISTICAL else 99  # which also chooses channels there
        plan = Plan(name, parameters_of(name), framing, 16, seed, "f32", 0.01)
        restored = build(plan).restore(detector.state())
        images = images_of(framing)
        for key, values in run(restored.graph(), images).items():
            # The seed also orders what densities are sums of: these differ in their rounding.
            np.testing.assert_allclose(values, run(graph, images)[key], rtol=1e-4, atol=1e-4)

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_detector_and_another_another(self, name):
        epochs = 8 if name == "draem" else 2  # after fewer it knows nothing, and says so
        framing = Framing(48, 48, 1)
        first, same = (fitted(name, framing, 0, epochs=epochs).state() for _ in range(2))
        if name in STATISTICAL:
            for key in first:
                np.testing.assert_array_equal(first[key], same[key], err_msg=key)
        # TensorFlow adds three gradients or more in an order that depends on its threads. Adam
        # makes a whole step of a gradient that is little but rounding: a few weights may differ.
        within = 1e-3 if name == "efficientad" else 1e-4  # it picks cells by their rank
        assert apart(first, same) < within
        if name not in ("dfm", "dfkde", "variances"):  # where nothing is random
            assert apart(first, fitted(name, framing, 1, epochs=epochs).state()) > 1e-2


class TestReconstruction(OfEachMethod):
    """Those that rebuild the image."""

    NAMES = ("AD0", "AD1", "vae", "lake", "ganomaly")


class TestFlows(OfEachMethod):
    """Those of normalising flows."""

    NAMES = ("fastflow", "cflow")


class TestStudents(OfEachMethod):
    """Those that learn what another network says, or what is wrong with an image."""

    NAMES = ("rd", "stfpm", "efficientad", "draem")


class TestOthers(OfEachMethod):
    """All that no other class names, those from outside among them."""

    NAMES = tuple(
        name
        for name in PRESETS
        if not any(name in each.NAMES for each in (TestReconstruction, TestFlows, TestStudents))
    )


@pytest.mark.parametrize("name", STATISTICAL)
def test_statistics_of_halves_merged_are_those_of_the_whole(name):
    framing = Framing(48, 48, 1)
    detector = build(Plan.from_options(name, {"img_size": (48, 48), "gray_scale": True}))
    images = np.concatenate([framing.views(draw_part(n, size=96)) for n in range(12)])
    shaped = run(detector.features(), images)
    features = FeatureSet({name: values[:, None] for name, values in shaped.items()})
    detector.prepare_from(features)

    def learnt(some):
        statistic = detector.new_statistic()
        detector.learn(statistic, features[some])
        return statistic

    whole, half, rest = learnt(slice(0, 12)), learnt(slice(0, 7)), learnt(slice(7, 12))
    merged = learnt(slice(7, 12))
    merged.merge(half)
    taken_out = whole.without(rest)
    for received, expected in ((merged, whole), (taken_out, half)):
        assert received.count == expected.count
        out, wanted = (detector.scorer(statistic)(shaped) for statistic in (received, expected))
        for key, values in wanted.items():
            np.testing.assert_allclose(out[key], values, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ADDS_IMAGES)
def test_halves_merged_or_added_equal_the_whole(name, tmp_path):
    folder = write_parts(tmp_path / "parts", 24)
    files = sorted(folder.iterdir())
    options = {"img_size": (64, 64), "patch_size": 16}
    if name == "padim":  # with its projection, scales of layers are those of the first training
        options |= {"projection": "channels", "channels": 64}
    whole = AD(name, files, save_path=tmp_path / "whole", **options).train()
    parts = AD(name, files[:11], save_path=tmp_path / "parts_model", **options).train()
    parts = AD(parts.model.directory).add_images(files[11:])
    expected = [p.raw_score for p in whole.predict(folder, save=False)]
    received = [p.raw_score for p in parts.predict(folder, save=False)]
    np.testing.assert_allclose(received, expected, rtol=1e-4)
    assert parts.model.manifest.calibration.image.n_images == 24
    assert parts.model.manifest.training["n_fit"] == 24
    with pytest.raises(DataError, match="already"):
        parts.add_images(files[11:])


@pytest.mark.slow
@pytest.mark.parametrize("name", STATISTICAL)
def test_images_are_scored_by_statistics_that_have_not_seen_them(name, tmp_path):
    """One odd image among good ones: its held-out score is high, though its own model knows it."""
    folder = write_parts(tmp_path / "parts", 20)
    odd = write_parts(tmp_path / "odd", 1, defect=True, first=300) / "300.png"
    files = [*sorted(folder.iterdir()), odd]
    ad = AD(name, files, save_path=tmp_path, img_size=(64, 64), patch_size=16).train()
    held_out = ad.model.state()["held_out_scores"]
    good = np.delete(held_out, 20)
    assert held_out[20] - np.median(good) > 1.5 * (good.max() - np.median(good))
    own = np.array([p.raw_score for p in ad.predict(files, save=False)])
    assert held_out[20] > own[20] and held_out.mean() > own.mean()


PREDICT = """
import json, sys
from anomaly_ad import AD, DataError, OptionError
folder, *models = sys.argv[1:]
for model in models:
    print(json.dumps([p.raw_score for p in AD(model).predict(folder, save=False)]))
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""


@pytest.mark.slow
def test_another_process_without_tensorflow_gives_the_same_scores(tmp_path):
    folder = write_parts(tmp_path / "parts", 12)
    options = {"save_path": tmp_path, "img_size": (48, 48), "patch_size": 16}
    models = [AD(name, folder, name=name, **options).train(1) for name in PRESETS]
    paths = [str(ad.model.directory) for ad in models]
    command = [sys.executable, "-c", PREDICT, str(folder), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    for ad, scores in zip(models, found, strict=True):
        here = [prediction.raw_score for prediction in ad.predict(folder, save=False)]
        np.testing.assert_allclose(scores, here, rtol=1e-5)
