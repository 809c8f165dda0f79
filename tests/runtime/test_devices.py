import copy

import numpy as np
import openvino as ov
import pytest
from conftest import draw_part, run_command, write_parts
from openvino import opset13

from anomaly_ad import AD
from anomaly_ad.errors import DeviceError, OptionError
from anomaly_ad.model import load
from anomaly_ad.runtime import Device, Engine
from anomaly_ad.runtime.devices import available


class Core:
    """OpenVINO on a machine that has a GPU, whose results are larger by a factor."""

    factor = 1.0

    def __init__(self):
        self._core = _Real()
        self.available_devices = ["CPU", "GPU"]
        self.read_model = self._core.read_model

    def set_property(self, *given):
        self._core.set_property(*given)

    def get_property(self, device, name):
        about = {"FULL_DEVICE_NAME": "Pretended Graphics", "OPTIMIZATION_CAPABILITIES": ["FP16"]}
        return about[name] if device == "GPU" else self._core.get_property(device, name)

    def compile_model(self, model, device, properties):
        if device == "GPU":
            assert properties.pop("INFERENCE_PRECISION_HINT") == "f16"  # all that it is able to do
            model = model.clone()
            for result in model.get_results():
                source = result.input_value(0)
                names = source.get_names()
                larger = opset13.multiply(source, np.float32(self.factor))
                source.set_names(set())
                larger.output(0).set_names(names)
                result.input(0).replace_source_output(larger.output(0))
            device, properties["INFERENCE_PRECISION_HINT"] = "CPU", "f32"
        return self._core.compile_model(model, device, properties)


_Real = ov.Core


@pytest.fixture
def with_gpu(monkeypatch):
    def pretend(factor):
        monkeypatch.setattr(ov, "Core", type("Core", (Core,), {"factor": factor}))
        available.cache_clear()

    yield pretend
    available.cache_clear()


def test_devices_are_named(monkeypatch):
    assert Device("gpu.1") == Device("GPU.1")
    for name in ("", "TPU", "CPU,GPU", "HETERO:CPU", 3):
        with pytest.raises(OptionError, match="device is CPU, GPU, NPU"):
            Device(name)
    for threads in (0, -1, 2.0, True):
        with pytest.raises(OptionError, match="threads is a number from 1"):
            Device("CPU", threads)


def test_a_device_that_is_missing_is_refused_with_those_there_are(trained):
    with pytest.raises(OptionError, match=r"no device NPU .* There are: CPU \("):
        AD(trained, device="NPU")
    _, words = run_command("predict", trained, trained, "--device", "GPU", code=2)
    assert "There is no device GPU on this machine" in words


def test_they_are_listed():
    out, _ = run_command("devices")
    assert out.startswith("CPU") and len(out.splitlines()) == len(available())


def test_the_processor_by_another_name(trained, dataset):
    """Where there is nothing to choose from, AUTO is the CPU: same scores, nothing to be shown."""
    folder = dataset / "test" / "bar"
    scores = [p.raw_score for p in AD(trained).predict(folder, save=False)]
    chosen = [p.raw_score for p in AD(trained, device="auto").predict(folder, save=False)]
    assert scores == pytest.approx(chosen, rel=1e-6)


def test_threads(trained):
    model = AD(trained, threads=1).model
    compiled = model.engine._streaming
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 1
    assert copy.copy(model).engine.device == Device("CPU", 1)


def test_a_process_with_one_processor_runs_one_stream(trained, monkeypatch):
    monkeypatch.setattr("anomaly_ad.runtime.devices.cpu_count", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    compiled = load(trained).engine._streaming
    assert compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 1


def test_limits_have_to_be_shown_to_hold_elsewhere(with_gpu, trained, dataset, tmp_path, capsys):
    with_gpu(1.0)
    image = draw_part(1)
    unknown = AD(trained, device="GPU")
    with pytest.raises(DeviceError, match=r"taken on CPU; on GPU its arithmetic is f16.*--check"):
        unknown.predict(image, save=False)
    ad = AD(trained, device="GPU", check=dataset / "train" / "good")
    assert "The limits hold: scores of 24 good images on GPU" in capsys.readouterr().err
    expected = AD(trained).predict(image, save=False)
    assert ad.predict(image, save=False).raw_score == pytest.approx(expected.raw_score)
    with pytest.raises(OptionError, match="Load the model without `device`"):
        ad.train(1)


def test_where_they_do_not_hold_the_model_is_refused(with_gpu, trained, dataset):
    with_gpu(1.2)
    with pytest.raises(DeviceError, match=r"do not hold on GPU.*calibrate MODEL --good DIR"):
        AD(trained, device="GPU", check=dataset / "train" / "good")


def test_limits_taken_there_hold_there_and_nowhere_else(with_gpu, trained, dataset, tmp_path):
    with_gpu(1.2)
    fresh = write_parts(tmp_path / "fresh", 12, first=300)
    ad = AD(trained, save_path=tmp_path, name="there", device="GPU")
    with pytest.raises(OptionError, match="On GPU a limit needs good images"):
        ad.calibrate(limit=1e6)
    ad.calibrate(good=fresh)
    one = AD(tmp_path / "there", device="GPU").predict(fresh / "300.png", save=False)
    here = AD(trained).predict(fresh / "300.png", save=False)
    assert one.raw_score == pytest.approx(1.2 * here.raw_score, rel=1e-5)
    assert not one.is_anomalous
    out, _ = run_command("info", tmp_path / "there")
    assert "on GPU" in out
    with pytest.raises(DeviceError, match="taken on GPU; on CPU"):
        AD(tmp_path / "there").predict(fresh, save=False)
    # By hand on the device they stay its own; from the scores of the training they are the CPU's.
    AD(tmp_path / "there", device="GPU").calibrate(limit=10 * one.raw_score)
    assert AD(tmp_path / "there", device="GPU").model.manifest.calibration.device == "GPU"
    AD(tmp_path / "there", device="GPU").calibrate(false_alarm_rate=0.1)
    assert AD(tmp_path / "there").model.manifest.calibration.device == "CPU"


def test_only_a_model_that_is_loaded_goes_to_a_device(dataset):
    with pytest.raises(OptionError, match="training runs on the CPU"):
        AD("padim", dataset, threads=2)


def test_an_engine_says_what_it_computes_in(with_gpu, trained):
    with_gpu(1.0)
    xml = next(trained.glob("*.xml"))
    assert Engine(xml).arithmetic == "f32"
    assert Engine(xml, "f32", Device("GPU")).arithmetic == "f16"
