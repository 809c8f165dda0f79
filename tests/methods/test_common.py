"""What every detector must do, on more configurations than its default."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import draw_part, write_parts

pytest.importorskip("tensorflow", reason="training needs the extra 'train'")

from anomaly_ad import AD, DataError, OptionError
from anomaly_ad.images import ImageSet, ImageSpec
from anomaly_ad.methods import registry
from anomaly_ad.model.plan import Plan
from anomaly_ad.runtime.convert import prove_parity, to_openvino
from anomaly_ad.runtime.engine import Engine
from anomaly_ad.training.steps import build, learn

STATISTICAL = [name for name, preset in registry.PRESETS.items() if preset.epochs is None]
ADDS_IMAGES = [name for name in STATISTICAL if registry.preset(name).adds_images]
CONFIGURATIONS = {
    "gray": ImageSpec(64, 64, 1),
    "colour": ImageSpec(64, 64, 3),
    "not square, no multiple of the stride": ImageSpec(70, 57, 3),
    "padded": ImageSpec(48, 80, 1, "pad"),
}
# One of each family stands for the others in the rest of the configurations.
FEWER = {
    "AD0": ["colour", "padded"],
    "AD1": ["gray"],
    "vae": ["padded"],
    "lake": ["not square, no multiple of the stride"],
    "dfm": ["colour", "not square, no multiple of the stride"],
    "dfkde": ["gray", "padded"],
}
CASES = [
    pytest.param((name, CONFIGURATIONS[label]), id=f"{name}-{label}")
    for name in registry.PRESETS
    for label in FEWER.get(name, CONFIGURATIONS)
]


def fitted(name, spec, seed=0, epochs=4):
    parameters = dict(registry.preset(name).parameters)
    plan = Plan(name, parameters, spec, 16, seed, "f32", 0.01)
    detector = build(plan)
    images = ImageSet(np.stack([spec.prepare(draw_part(n, size=96)) for n in range(23)]))
    before = images[slice(0, 23)]
    learn(detector, images, plan, epochs=epochs)
    np.testing.assert_array_equal(images[slice(0, 23)], before)
    return detector


@pytest.fixture(scope="module", params=CASES)
def case(request):
    name, spec = request.param
    detector = fitted(name, spec, epochs=12)
    return name, spec, detector, detector.graph()


def run(graph, images):
    return {name: np.asarray(value) for name, value in graph(images, training=False).items()}


def images_of(spec, *, defect=False, count=3):
    drawn = (draw_part(500 + n, defect=defect, size=96) for n in range(count))
    return np.stack([spec.prepare(image) for image in drawn])


def test_shapes_and_types(case):
    _, spec, _, graph = case
    out = run(graph, images_of(spec))
    assert out["score"].shape == (3,) and out["score"].dtype == np.float32
    if "anomaly_map" in out:
        assert out["anomaly_map"].shape == (3, *spec.size)
        assert out["anomaly_map"].dtype == np.float32
    if "reconstruction" in out:
        assert out["reconstruction"].shape == (3, *spec.shape)
        assert out["reconstruction"].min() >= 0 and out["reconstruction"].max() <= 255


def test_finite_on_constant_and_noise_images(case):
    _, spec, _, graph = case
    noise = np.random.default_rng(0).integers(0, 256, spec.shape, dtype=np.uint8)
    constant = [np.full(spec.shape, value, np.uint8) for value in (0, 128, 255)]
    for values in run(graph, np.stack([noise, *constant])).values():
        assert np.isfinite(values).all()


def test_a_planted_defect_scores_higher_and_the_map_peaks_on_it(case):
    _, spec, _, graph = case
    good, bad = images_of(spec), images_of(spec, defect=True)
    good_out, bad_out = run(graph, good), run(graph, bad)
    assert bad_out["score"].min() > good_out["score"].max()
    for n, anomaly_map in enumerate(bad_out.get("anomaly_map", [])):
        different = np.abs(bad[n].astype(int) - good[n]).max(axis=-1) > 60
        ys, xs = np.nonzero(different)
        y, x = np.unravel_index(np.argmax(anomaly_map), anomaly_map.shape)
        assert ys.min() - 6 <= y <= ys.max() + 6 and xs.min() - 6 <= x <= xs.max() + 6


def test_a_batch_equals_single_images(case):
    _, spec, _, graph = case
    images = images_of(spec, defect=True)
    together = run(graph, images)
    for n in range(len(images)):
        alone = run(graph, images[n : n + 1])
        for name in together:
            np.testing.assert_allclose(together[name][n], alone[name][0], rtol=1e-4, atol=1e-3)


def test_the_converted_graph_is_the_trained_one(case):
    _, spec, _, graph = case
    model = to_openvino(graph)
    images = np.concatenate([images_of(spec), images_of(spec, defect=True)])
    parity = prove_parity(graph, Engine(model), images)
    assert set(parity.deviation) == {output.get_any_name() for output in model.outputs}
    assert model.inputs[0].get_any_name() == "images"
    assert model.inputs[0].partial_shape[0].is_dynamic


def test_state_restores_the_detector(case):
    name, spec, detector, graph = case
    parameters = dict(registry.preset(name).parameters)
    seed = 0 if name in STATISTICAL else 99  # which also chooses channels there
    restored = build(Plan(name, parameters, spec, 16, seed, "f32", 0.01)).restore(detector.state())
    images = images_of(spec)
    for key, values in run(restored.graph(), images).items():
        # The seed also orders what densities are sums of, so that these differ in their rounding.
        np.testing.assert_allclose(values, run(graph, images)[key], rtol=1e-4, atol=1e-4)


# AD1 is AD0 in gray, which all are here.
@pytest.mark.parametrize("name", [name for name in registry.PRESETS if name != "AD1"])
def test_the_same_seed_gives_the_same_detector_and_another_another(name):
    first, same = (fitted(name, ImageSpec(48, 48, 1), 0, epochs=2).state() for _ in range(2))
    assert all(np.array_equal(first[key], same[key]) for key in first)
    if name not in ("dfm", "dfkde"):  # where nothing is random
        other = fitted(name, ImageSpec(48, 48, 1), 1, epochs=2).state()
        assert any(not np.array_equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", STATISTICAL)
def test_statistics_of_halves_merged_are_those_of_the_whole(name):
    spec = ImageSpec(48, 48, 1)
    detector = build(Plan.from_options(name, {"img_size": (48, 48), "gray_scale": True}))
    images = np.stack([spec.prepare(draw_part(n, size=96)) for n in range(12)])
    shaped = np.asarray(detector.features()(images)["features"])
    features = shaped.reshape(12, -1, shaped.shape[-1])
    whole = detector.new_statistic().update(features)
    merged = detector.new_statistic().update(features[7:])
    merged.merge(detector.new_statistic().update(features[:7]))
    taken_out = whole.without(detector.new_statistic().update(features[7:]))
    half = detector.new_statistic().update(features[:7])
    for received, expected in ((merged, whole), (taken_out, half)):
        assert received.count == expected.count
        out, wanted = (detector.scorer(statistic)(shaped) for statistic in (received, expected))
        for key, values in wanted.items():
            np.testing.assert_allclose(out[key], values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ADDS_IMAGES)
def test_halves_merged_or_added_equal_the_whole(name, tmp_path):
    folder = write_parts(tmp_path / "parts", 24)
    files = sorted(folder.iterdir())
    options = {"img_size": (64, 64), "patch_size": 16}
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


@pytest.mark.parametrize("name", STATISTICAL)
def test_images_are_judged_by_statistics_that_have_not_seen_them(name, tmp_path):
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


def test_methods_that_cannot_add_images_say_so(trained):
    with pytest.raises(OptionError, match=r"train it again.*padim"):
        AD(trained).add_images("missing")


PREDICT = """
import sys
from anomaly_ad import AD, DataError, OptionError
predictions = AD(sys.argv[1]).predict(sys.argv[2], save=False)
print(*(repr(p.raw_score) for p in predictions))
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""


@pytest.mark.parametrize("name", registry.PRESETS)
def test_another_process_without_tensorflow_gives_the_same_scores(name, tmp_path):
    folder = write_parts(tmp_path / "parts", 12)
    ad = AD(name, folder, save_path=tmp_path, img_size=(48, 48), patch_size=16).train(1)
    scores = [prediction.raw_score for prediction in ad.predict(folder, save=False)]
    command = [sys.executable, "-c", PREDICT, str(tmp_path / "model"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    other = [float(word) for word in done.stdout.splitlines()[-1].split()]
    np.testing.assert_allclose(other, scores, rtol=1e-5)
