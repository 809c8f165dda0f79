import json
import os
import subprocess

import numpy as np
import openvino as ov
import pytest
from conftest import draw_part, run_command, write_parts

from anomaly_ad import AD
from anomaly_ad.errors import (
    DataError,
    ModelError,
    OptionError,
    OutputError,
    ParityError,
    PathError,
)
from anomaly_ad.exports import export, kinds
from anomaly_ad.exports.metadata import pattern
from anomaly_ad.model import Calibration, Limit, load
from anomaly_ad.runtime import Engine

SUFFIX = {"openvino": ".xml", "onnx": ".onnx", "model-api": ".xml"}


@pytest.fixture(scope="module")
def files(trained, tmp_path_factory):
    """The exports of the small model, by format."""
    pytest.importorskip("tf2onnx", reason="ONNX needs the extra 'export'")
    folder = tmp_path_factory.mktemp("exports")
    found = {}
    for to, suffix in SUFFIX.items():
        found[to] = export(load(trained), folder / to / f"part{suffix}", to).files[0]
    return found


@pytest.fixture
def views(trained):
    framing = load(trained).manifest.plan.framing
    some = [draw_part(n, defect=n > 3) for n in range(8)]
    return np.concatenate([framing.views(image) for image in some])


def test_the_openvino_file_is_the_model(files, trained, views):
    expected = load(trained).engine.run_all(views)
    received = Engine(files["openvino"]).run_all(views)
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], values)
    model = ov.Core().read_model(files["openvino"])
    about = json.loads(model.get_rt_info(["anomaly_ad", "metadata"]).astype(str))
    assert about["model"] == load(trained).digest
    assert about["class_names"] == ["good", "anomalous"]


def test_the_onnx_file_is_the_model(files, trained, views):
    import onnx
    import onnxruntime

    session = onnxruntime.InferenceSession(files["onnx"], providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape[1:] == [*views.shape[1:]] and not isinstance(images.shape[0], int)
    names = [output.name for output in session.get_outputs()]
    received = dict(zip(names, session.run(names, {"images": views}), strict=True))
    expected = load(trained).engine.run_all(views)
    assert received.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, atol=1e-4 * np.ptp(values) + 1e-6)
    properties = {one.key: one.value for one in onnx.load(files["onnx"]).metadata_props}
    limit = json.loads(properties["anomaly_ad"])["limits"]["image"]["limit"]
    assert limit == load(trained).manifest.calibration.image.limit


def test_metadata_hold_vectors_for_ones_own_code(files, trained):
    from anomaly_ad.images import image_digest

    model = ov.Core().read_model(files["openvino"])
    about = json.loads(model.get_rt_info(["anomaly_ad", "metadata"]).astype(str))
    (vector,) = about["vectors"]
    seen = load(trained).manifest.plan.framing.views(pattern(*vector["photograph"]))
    assert [image_digest(view[None]) for view in seen] == vector["sha256"]
    x, y = 7, 5
    assert pattern(9, 9)[y, x, 2] == (7 * x + 13 * y + 29 * 2 + (x * y) % 31) % 256


def test_scores_and_verdicts_for_model_api(files, trained, views):
    calibration = load(trained).manifest.calibration
    expected = load(trained).engine.run_all(views)
    compiled = ov.Core().compile_model(
        files["model-api"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    assert {output.get_any_name() for output in compiled.outputs} == {
        *("pred_score", "pred_label", "anomaly_map", "pred_mask")
    }
    for number, view in enumerate(views):
        found = compiled(view[None])
        score, cells = expected["score"][number], expected["anomaly_map"][number]
        assert found["pred_score"][0] == pytest.approx(calibration.image.score(score), abs=1e-5)
        assert found["pred_label"][0] == (score > calibration.image.limit)
        np.testing.assert_allclose(found["anomaly_map"][0], calibration.map.score(cells), atol=1e-5)
        mask = cells > calibration.map.limit
        assert (found["pred_mask"][0].astype(bool) != mask).mean() < 1e-3


def test_intels_wrapper_gives_the_verdicts_of_predict(files, trained, tmp_path):
    python = os.environ.get("ANOMALY_AD_MODEL_API")
    if not python:
        pytest.skip("ANOMALY_AD_MODEL_API names no Python with openvino-model-api")
    framing = load(trained).manifest.plan.framing
    images = [draw_part(n, defect=n > 4) for n in range(10)]
    np.save(tmp_path / "views.npy", np.concatenate([framing.views(image) for image in images]))
    program = (
        "import json, sys, numpy as np\n"
        "from model_api.models import AnomalyDetection\n"
        "model = AnomalyDetection.create_model(sys.argv[1], device='CPU')\n"
        "found = [model(view) for view in np.load(sys.argv[2])]\n"
        "print(json.dumps([(each.pred_label, each.pred_score) for each in found]))\n"
    )
    command = [python, "-c", program, files["model-api"], tmp_path / "views.npy"]
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    received = json.loads(done.stdout.splitlines()[-1])
    predictions = AD(trained).predict(images, save=False)
    assert [label for label, _ in received] == [str(p.is_anomalous) for p in predictions]
    assert [s for _, s in received] == pytest.approx([p.score for p in predictions], abs=1e-4)
    assert len({label for label, _ in received}) == 2


def test_labels_are_exact_at_the_limit():
    """A limit is a float64; a raw score at it is good, and the next larger float32 is not."""
    from openvino import opset13 as ops

    from anomaly_ad.exports.verdicts import with_verdicts

    for limit in (1.0, 0.1, 1 / 3, 12.3456789):
        images = ops.parameter([-1], np.float32, name="images")
        score = ops.multiply(images, np.float32(1))
        score.output(0).get_tensor().set_names({"score"})
        model = ov.Model([ops.result(score)], [images], "raw")
        calibration = Calibration(Limit(0.0, limit, 9, 0.01, 0.1), None)
        compiled = ov.Core().compile_model(with_verdicts(model, calibration, (4, 6)), "CPU")
        near = np.float32(limit)
        raw = np.array(
            [np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(99))]
        )
        found = compiled(raw)
        assert found["pred_label"].tolist() == [bool(float(value) > limit) for value in raw]
        assert found["anomaly_map"].shape == found["pred_mask"].shape == (3, 4, 6)
        assert (found["pred_mask"][2] == 1).all() and (found["pred_mask"][0] == 0).all()
        np.testing.assert_allclose(found["anomaly_map"][:, 0, 0], found["pred_score"])


def test_half_the_weights(washer, tmp_path):
    model, sample = washer
    whole = AD(model).export(tmp_path / "whole.xml", images=sample / "test")
    half = AD(model).export(tmp_path / "half.xml", images=sample / "test", weights="f16")
    assert half.size < 0.7 * whole.size
    assert 0 < max(half.parity.deviation.values()) < 2e-3
    with pytest.raises(OptionError, match="the latter for openvino alone"):
        AD(model).export(tmp_path / "half.onnx", "onnx", weights="f16")


def test_the_command(trained, dataset, tmp_path):
    target = tmp_path / "new" / "part.xml"
    out, words = run_command("export", trained, "--output", target, "--images", dataset / "test")
    assert out.split() == [str(target), str(target.with_suffix(".bin"))]
    assert "On 8 views of images, and on these with a gray square, all verdicts are" in words
    assert sorted(os.listdir(target.parent)) == ["part.bin", "part.xml"]


@pytest.mark.parametrize(
    ("output", "to", "more", "words"),
    [
        ("a.xml", "tflite", {}, "to is one of openvino, onnx, model-api"),
        ("a.onnx", "openvino", {}, r"named \*\.xml"),
        ("a", "onnx", {}, r"named \*\.onnx"),
        ("a.xml", "openvino", {"weights": "int8"}, "weights is f32 or f16"),
    ],
)
def test_wrong_arguments(trained, tmp_path, output, to, more, words):
    with pytest.raises(OptionError, match=words):
        AD(trained).export(tmp_path / output, to, **more)
    assert not list(tmp_path.iterdir())


def test_the_model_directory_is_not_written_to(trained):
    before = sorted(os.listdir(trained))
    with pytest.raises(OptionError, match="belongs to the model"):
        AD(trained).export(trained / "part.xml")
    assert sorted(os.listdir(trained)) == before


def test_images_are_needed(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PathError, match="holds no images"):
        AD(trained).export(tmp_path / "a.xml", images=tmp_path / "empty")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png"):
        AD(trained).export(tmp_path / "a.xml", images=broken)


def test_images_of_the_training_that_are_gone(tmp_path):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    good = write_parts(tmp_path / "good", 12)
    AD("AD0", good, save_path=tmp_path, img_size=(32, 32), patch_size=8).train(1, review=False)
    for image in good.iterdir():
        image.unlink()
    with pytest.raises(DataError, match="are not where they were"):
        AD(tmp_path / "model").export(tmp_path / "a.xml")


def test_a_file_that_is_not_the_model_is_not_left(trained, tmp_path, monkeypatch):
    (tmp_path / "part.xml").write_text("another file")
    run = kinds.OpenVino.run

    def off(self, stored, target):
        found = run(self, stored, target)
        return lambda views: {name: values * 1.01 for name, values in found(views).items()}

    monkeypatch.setattr(kinds.OpenVino, "run", off)
    with pytest.raises(ParityError, match=r"is not the model: outputs deviate by .*Nothing was"):
        AD(trained).export(tmp_path / "part.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["part.xml"]
    assert (tmp_path / "part.xml").read_text() == "another file"


def test_an_old_graph_never_lies_next_to_new_weights(trained, tmp_path, monkeypatch):
    (tmp_path / "part.xml").write_text("the graph of an older export")
    real = os.replace

    def ends_in_between(source, target):
        if str(target).endswith(".xml"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", ends_in_between)
    with pytest.raises(KeyboardInterrupt):
        AD(trained).export(tmp_path / "part.xml")
    assert [path.name for path in tmp_path.iterdir()] == ["part.bin"]


def test_another_verdict_alone_is_enough_to_refuse(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(
        kinds.OpenVino, "are_anomalous", lambda self, stored, outputs: outputs["score"] < np.inf
    )
    with pytest.raises(ParityError, match="of 48 verdicts differ"):
        AD(trained).export(tmp_path / "part.xml")


def test_a_folder_that_cannot_be_made(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        AD(trained).export(tmp_path / "file" / "part.xml")


def test_a_damaged_model_is_not_exported(trained, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    ad = AD(copy)
    weights = next(copy.glob("*.bin"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"0000")
    with pytest.raises(ModelError, match="is not as it was saved"):
        ad.export(tmp_path / "part.xml")


def test_model_api_takes_one_whole_image(dataset, tmp_path):
    pytest.importorskip("tensorflow", reason="training needs the extra 'train'")
    ad = AD("AD0", dataset, save_path=tmp_path, img_size=(32, 48), patch_size=8, fit="pad")
    ad.train(1, review=False)
    with pytest.raises(OptionError, match=r'a second input, "inside"\. Export it to openvino'):
        ad.export(tmp_path / "part.xml", "model-api")
    ad.export(tmp_path / "part.xml")
