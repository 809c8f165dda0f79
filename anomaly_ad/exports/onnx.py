"""A trained graph as an ONNX file. Needs the extras "train" and "export"."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError, OptionError, missing_extra
from ..model import StoredModel
from ..training.steps import build

_OPSET = 17  # ONNX Runtime 1.13 of 2022 reads it


def runtime() -> Any:
    """ONNX Runtime; MissingExtraError where it is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise missing_extra("Export to ONNX", "export", str(error.name)) from error
    return onnxruntime


def write_onnx(stored: StoredModel, target: Path, properties: Mapping[str, str]) -> None:
    """Build the graph from the state of training and write it.

    Names and types of inputs and outputs are those of the model; the batch is open.

    Parameters
    ----------
    stored : StoredModel
        The model.
    target : Path
        The file.
    properties : mapping of str to str
        Its metadata_props.

    Raises
    ------
    MissingExtraError
        A package is not installed.
    ModelError
        The graph holds something that ONNX cannot express.
    """
    plan = stored.manifest.plan
    if plan.precision != "f32":
        raise OptionError(
            f"The limits of this model hold in {plan.precision}, and ONNX Runtime computes in f32. "
            "Train it with precision='f32', or export it to openvino."
        )
    try:
        import onnx
        import tf2onnx

        from ..runtime.convert import traced
    except ModuleNotFoundError as error:
        extra = "export" if str(error.name) in ("onnx", "tf2onnx") else "train"
        raise missing_extra("Export to ONNX", extra, str(error.name)) from error
    function = traced(build(plan).restore(stored.detector_state()).graph())
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        model, _ = tf2onnx.convert.from_function(
            function, input_signature=function.input_signature, opset=_OPSET
        )
    except (RuntimeError, ValueError, KeyError, NotImplementedError) as error:
        raise ModelError(
            f"The graph of {plan.method} cannot be expressed in ONNX: {error}"
        ) from error
    model.producer_name = "anomaly_ad"
    onnx.helper.set_model_props(model, dict(properties))
    onnx.save(model, target)
