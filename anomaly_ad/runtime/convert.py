"""Keras graph -> OpenVINO model, and the proof that both say the same."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import openvino as ov
import tensorflow as tf
from numpy.typing import NDArray

from ..errors import ParityError
from ..images import model_inputs
from .agreement import Parity, compared
from .engine import Engine

TOLERANCE = 1e-4  # of the output's range over the compared images, weights and arithmetic in f32
_PIXELS = 256 * 512  # that the trained graph works on at a time


def to_openvino(graph: Any, inputs: Sequence[str] | None = None) -> ov.Model:
    """Convert a detector's graph; names of input and outputs and the open batch size are kept.

    Parameters
    ----------
    graph : keras.Model or what `traced` gives
        Tracing takes as long as converting, so what is both converted and proven is traced before.
    inputs : sequence of str, optional
        Other names for the inputs of a keras.Model, in their order.
    """
    function = traced(graph, inputs) if isinstance(graph, keras.Model) else graph
    with _unreported():
        model = ov.convert_model(function)
    _merge_equal(model)
    return model


def _merge_equal(model: ov.Model) -> None:
    """Compute once what several parts of a graph compute alike, such as a shared backbone.

    The converter does that for most of a graph; behind a transposition there and back it does not.
    """
    known: dict[tuple[Any, ...], ov.Node] = {}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Parameter", "Result") or "Random" in kind:
            continue
        what = [repr(sorted(node.get_attributes().items()))]
        if kind == "Constant":
            what.append(hashlib.sha256(np.ascontiguousarray(node.data).tobytes()).hexdigest())
        sources = (each.get_source_output() for each in node.inputs())
        places = tuple((each.get_node().get_friendly_name(), each.get_index()) for each in sources)
        first = known.setdefault((kind, *what, places), node)
        if (undone := _undone(node)) is not None:
            node.output(0).replace(undone)
        elif first is not node:
            for output, same in zip(node.outputs(), first.outputs(), strict=True):
                output.replace(same)


def _undone(node: ov.Node) -> ov.Output | None:
    """What a transposition is of, where that was transposed before so that both do nothing."""
    before = node.input_value(0).get_node() if node.get_input_size() else None
    if before is None or {node.get_type_name(), before.get_type_name()} != {"Transpose"}:
        return None
    orders = [each.input_value(1).get_node() for each in (before, node)]
    if any(order.get_type_name() != "Constant" for order in orders):
        return None
    first, second = (order.data for order in orders)
    return before.input_value(0) if (first[second] == np.arange(len(first))).all() else None


@contextmanager
def _unreported() -> Iterator[None]:
    """Keep OpenVINO's converter from reporting its use over the network while it works.

    It starts a process for every event and waits for it; where there is no internet that costs
    more than a second per conversion, and what a factory does is nobody else's business. OpenVINO
    brings a stub for machines without the package that reports; it takes its place here.
    """
    names = ("convert_impl", "telemetry_utils", "utils")
    modules: list[Any] = [sys.modules.get(f"openvino.tools.ovc.{name}") for name in names]
    reporting = [module for module in modules if hasattr(module, "tm")]
    before = [module.tm for module in reporting]
    try:
        stub = importlib.import_module("openvino.tools.ovc.telemetry_stub")
    except ImportError:  # a version of OpenVINO without it
        stub = None
    try:
        if stub is not None:
            for module in reporting:
                module.tm = stub
        yield
    finally:
        for module, real in zip(reporting, before, strict=True):
            module.tm = real


def traced(graph: keras.Model, inputs: Sequence[str] | None = None) -> Any:
    """The graph as a function of tensors, which TensorFlow traces at its first call."""
    names = inputs or [each.name for each in graph.inputs]
    signature = [
        tf.TensorSpec(each.shape, each.dtype, name=name)
        for each, name in zip(graph.inputs, names, strict=True)
    ]
    return tf.function(lambda *inputs: _call(graph, [*inputs]), signature)


def run_graph(graph: keras.Model, views: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The outputs of a trained graph for views (B, height, width, channels), as arrays."""
    inputs = model_inputs(views, graph.inputs[0].shape[-1])
    return {name: np.asarray(values) for name, values in _call(graph, inputs).items()}


def _call(graph: keras.Model, inputs: list[Any]) -> dict[str, Any]:
    fed = inputs if isinstance(graph.input, (list, tuple)) else inputs[0]
    return graph(fed, training=False)


def prove_parity(
    graph: Any, engine: Engine, views: NDArray[np.uint8], tolerance: float = TOLERANCE
) -> Parity:
    """Run both on the same views and compare every output.

    Parameters
    ----------
    graph : keras.Model or what `traced` gives
        The trained graph.
    engine : Engine
        The converted one, at f32.
    views : ndarray of uint8, shape (N, height, width, channels)
        Of real images, see `images.Framing.views`; N >= 1.
    tolerance : float
        Largest accepted deviation, relative to each output's range.

    Raises
    ------
    ParityError
        An output deviates by more than the tolerance, or is not finite.
    """
    converted = engine.run_all(views)
    parts: dict[str, list[NDArray[Any]]] = {}
    at_a_time = max(1, _PIXELS // (views.shape[1] * views.shape[2]))
    # Layer by layer each call would take several times as long.
    trained = traced(graph) if isinstance(graph, keras.Model) else graph
    channels = trained.input_signature[0].shape[-1]
    for begin in range(0, len(views), at_a_time):
        some = model_inputs(views[begin : begin + at_a_time], channels)
        for name, values in trained(*some).items():
            parts.setdefault(name, []).append(np.asarray(values))
    expected = {name: np.concatenate(values) for name, values in parts.items()}
    if expected.keys() != converted.keys():
        raise ParityError(
            f"The converted model has the outputs {sorted(converted)}, the trained one "
            f"{sorted(expected)}. Report this as a bug."
        )
    parity = compared(expected, converted, len(views), tolerance)
    if odd := parity.odd:
        raise ParityError(
            f"The converted model deviates from the trained one by {odd} of the range of its "
            f"outputs; at most {tolerance} is accepted. Nothing was saved. Report this as a bug, "
            "with the versions of keras, tensorflow and openvino."
        )
    return parity
