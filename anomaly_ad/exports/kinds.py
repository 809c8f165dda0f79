"""The formats of exported files: how each is written, and how it is run to be compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from ..errors import ModelError, OptionError
from ..images import model_inputs
from ..model import StoredModel
from ..runtime import INT8, Engine
from .metadata import KEY
from .verdicts import with_verdicts

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[NDArray[np.uint8]], Arrays]

FULL, HALF = "f32", "f16"
_FEW = 1024  # weights that are not worth it
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Kind(Protocol):
    """A format."""

    suffix: str
    halves: bool  # whether weights may be stored in 16 bits

    def write(self, stored: StoredModel, target: Path, about: dict[str, Any], weights: str) -> None:
        """Write the file, and what belongs to it next to it."""

    def run(self, stored: StoredModel, target: Path) -> Run:
        """What the written file says of views, uint8 (N, height, width, channels)."""

    def expected(self, stored: StoredModel, outputs: Arrays) -> dict[str, NDArray[Any]]:
        """The same by the outputs of the model, which it is compared with."""

    def are_anomalous(self, stored: StoredModel, outputs: Arrays) -> NDArray[np.bool_]:
        """The verdicts on the views by what the file says, shape (N,)."""


def above_limit(stored: StoredModel, scores: NDArray[Any]) -> NDArray[np.bool_]:
    """The verdicts by raw scores, compared in double precision as `predict` does."""
    above: NDArray[np.bool_] = scores.astype(np.float64) > stored.manifest.calibration.image.limit
    return above


class _Raw:
    """Outputs of the model as they are; the verdict is taken with the limit in the metadata."""

    def expected(self, stored: StoredModel, outputs: Arrays) -> dict[str, NDArray[Any]]:
        return dict(outputs)

    def are_anomalous(self, stored: StoredModel, outputs: Arrays) -> NDArray[np.bool_]:
        return above_limit(stored, outputs["score"])


class OpenVino(_Raw):
    """.xml and .bin, metadata as rt_info ["anomaly_ad"]["metadata"]."""

    suffix, halves = ".xml", True

    def write(self, stored: StoredModel, target: Path, about: dict[str, Any], weights: str) -> None:
        """Write both files."""
        model = _graph_of(stored)
        _save(model, target, about, weights)

    def run(self, stored: StoredModel, target: Path) -> Run:
        """By OpenVINO on the CPU, in the model's arithmetic."""
        return Engine(target, stored.manifest.plan.precision).run_all


class Onnx(_Raw):
    """One .onnx file, opset 17, metadata under "anomaly_ad" in its metadata_props."""

    suffix, halves = ".onnx", False

    def write(self, stored: StoredModel, target: Path, about: dict[str, Any], weights: str) -> None:
        """Build the graph again from the state of training, and convert it."""
        from .onnx import runtime, write_onnx

        runtime()  # what is missing is said before the work
        write_onnx(stored, target, {KEY: json.dumps(about)})

    def run(self, stored: StoredModel, target: Path) -> Run:
        """By ONNX Runtime on the CPU."""
        from .onnx import runtime

        onnxruntime = runtime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(target, options, ["CPUExecutionProvider"])
        inputs = [each.name for each in session.get_inputs()]
        names = [each.name for each in session.get_outputs()]
        channels = stored.manifest.plan.framing.channels

        def run(views: NDArray[np.uint8]) -> Arrays:
            given = [
                dict(zip(inputs, model_inputs(view[None], channels), strict=True)) for view in views
            ]
            found = [session.run(names, one) for one in given]
            return {name: np.concatenate(each) for name, *each in zip(names, *found, strict=True)}

        return run


class ModelApi:
    """.xml and .bin for Intel's Model API: AnomalyDetection, four outputs with the verdict.

    It takes one prepared image, uint8 (1, height, width, channels), and gives "pred_score" in
    [0, 1) (0.8 at the limit), "pred_label" (True: anomalous), "anomaly_map" in [0, 1) and
    "pred_mask".
    """

    suffix, halves = ".xml", False

    def write(self, stored: StoredModel, target: Path, about: dict[str, Any], weights: str) -> None:
        """Add the limits to the graph, and say to Model API what it is."""
        framing = stored.manifest.plan.framing
        if framing.has_inside or framing.tiles is not None:
            what = "tiles" if framing.tiles is not None else 'a second input, "inside"'
            raise OptionError(
                f"Model API takes one whole image, and this model has {what}. Export it to "
                "openvino or onnx, or train with the whole photograph and fit='stretch'."
            )
        if stored.manifest.plan.precision == INT8:
            raise OptionError(
                "Model API runs several images at a time, and INT8 is right in one stream only on "
                "some processors. Export the model in f32, or this one to openvino."
            )
        model = with_verdicts(_graph_of(stored), stored.manifest.calibration, framing.size)
        height, width = framing.size
        own = {
            "model_type": "AnomalyDetection",
            "task": "segmentation",
            "labels": "good anomalous",
            "orig_height": str(height),
            "orig_width": str(width),
            "embedded_processing": "True",  # uint8 goes in as it is
        }
        for name, value in own.items():
            model.set_rt_info(value, ["model_info", name])
        model.inputs[0].get_node().set_layout(ov.Layout("NHWC"))
        _save(model, target, about, FULL)

    def run(self, stored: StoredModel, target: Path) -> Run:
        """By OpenVINO, which Model API runs it with."""
        core = ov.Core()
        hints = {"INFERENCE_PRECISION_HINT": stored.manifest.plan.precision}
        compiled = core.compile_model(core.read_model(target), "CPU", hints)

        def run(views: NDArray[np.uint8]) -> Arrays:
            found = [compiled(view[None]).to_dict() for view in views]
            return {
                each.get_any_name(): np.concatenate([one[each] for one in found])
                for each in compiled.outputs
            }

        return run

    def expected(self, stored: StoredModel, outputs: Arrays) -> dict[str, NDArray[Any]]:
        """Scores of the calibration; without a map the whole image has the image's score."""
        calibration, size = stored.manifest.calibration, stored.manifest.plan.framing.size
        scores = calibration.image.score(np.asarray(outputs["score"]))
        if calibration.map is None:
            maps = np.broadcast_to(scores[:, None, None], (len(scores), *size))
        else:
            maps = calibration.map.score(outputs["anomaly_map"])
        return {"pred_score": scores, "anomaly_map": maps}

    def are_anomalous(self, stored: StoredModel, outputs: Arrays) -> NDArray[np.bool_]:
        """The labels."""
        labels: NDArray[np.bool_] = outputs["pred_label"].astype(bool)
        return labels


KINDS: dict[str, Kind] = {"openvino": OpenVino(), "onnx": Onnx(), "model-api": ModelApi()}


def _graph_of(stored: StoredModel) -> ov.Model:
    """The model of the directory, to be changed."""
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})
    xml = next(name for name in stored.files if name.endswith(".xml"))
    return core.read_model(stored.directory / xml)


def _halve(model: ov.Model) -> None:
    """Store the weights of dense convolutions in 16 bits; arithmetic stays as it is.

    They are most of a backbone. Those of depthwise ones are few and spread widely, and would make
    most of the deviation; what scores stays as it is.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        for place in node.inputs():
            source = place.get_source_output().get_node()
            if source.get_type_name() != "Constant" or source.get_element_type() != ov.Type.f32:
                continue
            if source.data.size >= _FEW and np.abs(source.data).max() < _LARGEST_HALF:
                half = ops.constant(source.data.astype(np.float16))
                place.replace_source_output(ops.convert(half, "f32").output(0))


def _save(model: ov.Model, target: Path, about: dict[str, Any], weights: str) -> None:
    model.set_rt_info(json.dumps(about), [KEY, "metadata"])
    if weights == HALF:
        _halve(model)
    try:
        ov.save_model(model, target, compress_to_fp16=False)
    except RuntimeError as error:
        raise ModelError(f"OpenVINO cannot write {target.name}: {error}") from error
