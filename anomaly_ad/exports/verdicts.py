"""The limits as a part of the graph: calibrated scores, a label and a mask."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from ..model import LIMIT_SCORE, Calibration, Limit


def with_verdicts(model: ov.Model, calibration: Calibration, size: tuple[int, int]) -> ov.Model:
    """The same graph with scores in [0, 1), see `Limit.score`, and what follows from the limits.

    Parameters
    ----------
    model : openvino.Model
        Outputs "score" and, for a method with maps, "anomaly_map".
    calibration : Calibration
        Its limits.
    size : (int, int)
        (height, width) of the input.

    Returns
    -------
    openvino.Model
        "pred_score" f32 (B,), "pred_label" boolean (B,), "anomaly_map" f32 (B, height, width) and
        "pred_mask" u8 (B, height, width). Without maps the whole image has the image's score,
        and the mask is all of an anomalous image.
    """
    found = {one.get_any_name(): one.get_node().input_value(0) for one in model.outputs}
    raw = found["score"]
    score, label = _score(raw, calibration.image), _above(raw, calibration.image)
    if calibration.map is None:
        shape = ops.concat([ops.shape_of(raw, "i64"), ops.constant([*size], dtype=np.int64)], 0)
        axes = ops.constant([1, 2], dtype=np.int64)
        maps = ops.broadcast(ops.unsqueeze(score, axes), shape)
        mask = ops.broadcast(ops.unsqueeze(ops.convert(label, "u8"), axes), shape)
    else:
        cells = found["anomaly_map"]
        maps = _score(cells, calibration.map)
        mask = ops.convert(_above(cells, calibration.map), "u8")
    outputs = {"pred_score": score, "pred_label": label, "anomaly_map": maps, "pred_mask": mask}
    for output in found.values():
        output.get_tensor().set_names(set())
    results = []
    for name, node in outputs.items():
        node.output(0).get_tensor().set_names({name})
        results.append(ops.result(node))
    return ov.Model(results, model.get_parameters(), "anomaly_detection")


def _score(raw: ov.Output, limit: Limit) -> ov.Node:
    """`Limit.score`, in single precision."""
    t = ops.divide(
        ops.subtract(raw, np.float32(limit.median)), np.float32(limit.limit - limit.median)
    )
    below = ops.clamp(t, 0.0, 1.0)
    above = ops.maximum(t, np.float32(1))
    rest = np.float32(1 - LIMIT_SCORE)
    bent = ops.divide(rest, ops.subtract(ops.multiply(above, np.float32(4)), np.float32(3)))
    out = ops.add(ops.multiply(below, np.float32(LIMIT_SCORE)), ops.subtract(rest, bent))
    return ops.minimum(out, np.nextafter(np.float32(1), np.float32(0)))


def _above(raw: ov.Output, limit: Limit) -> ov.Node:
    """Whether raw values exceed the limit, which need not be a number of single precision."""
    bound = np.float32(limit.limit)
    if float(bound) > limit.limit:  # the same values lie above the next lower one
        bound = np.nextafter(bound, np.float32(-np.inf))
    return ops.greater(raw, bound)
