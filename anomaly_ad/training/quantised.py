"""Features in INT8, and the head that scores them in f32 as one model.

Post-training quantisation of the network that the features come from, by NNCF with the images that
are learnt from. What is learnt, and the limits, then come from the quantised features themselves,
and the head never sees the quantiser. Quantising a finished model instead destroys its scores: a
Mahalanobis distance amplifies what was rounded.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from ..errors import missing_extra
from ..images import ImageSet, model_inputs

_IMAGES = 128  # whose views show the ranges of values


def quantised(model: ov.Model, images: ImageSet) -> ov.Model:
    """A network with weights and activations in INT8, where OpenVINO computes faster so.

    Parameters
    ----------
    model : openvino.Model
        "images", and in some "inside" -> named features; not changed.
    images : ImageSet
        Good images, of which up to 128 views are run.

    Raises
    ------
    MissingExtraError
        NNCF is not installed.
    """
    nncf = _nncf()
    views: NDArray[np.uint8] = images.as_views().spread(_IMAGES)[slice(None)]
    names = [each.get_any_name() for each in model.inputs]
    channels = model.input("images").get_partial_shape()[3].get_length()
    given = [
        dict(zip(names, model_inputs(view[None], channels), strict=True))
        if len(names) > 1
        else {names[0]: view[None]}
        for view in views
    ]
    with redirect_stdout(sys.stderr):
        out: ov.Model = nncf.quantize(
            model.clone(),
            nncf.Dataset(given),
            preset=nncf.QuantizationPreset.MIXED,  # activations of both signs by their own range
            subset_size=len(given),
            # Weights of 7 bits: sums of products of 8 overflow on processors without VNNI, which
            # would make scores other than those of another machine, or another batch.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
        )
    return out


def joined(front: ov.Model, head: ov.Model, names: Mapping[str, str]) -> ov.Model:
    """Both as one model.

    Parameters
    ----------
    front, head : openvino.Model
        Images -> features, and features -> outputs; both are used up.
    names : mapping of str to str
        Inputs of the head -> outputs of the front.
    """
    sources = {one.get_any_name(): one.get_node().input_value(0) for one in front.outputs}
    for parameter in head.get_parameters():
        place = parameter.output(0)
        source = sources[names[place.get_any_name()]]
        if source.get_element_type() == ov.Type.f32:
            # Changes nothing, and ends what OpenVINO computes in INT8: it would carry the scales of
            # features into the head, whose results then are others, and wrong (2026.4).
            source = ops.maximum(source, np.float32(np.finfo(np.float32).min)).output(0)
        place.get_tensor().set_names(set())  # or the source would get them
        place.replace(source)
    return ov.Model(head.get_results(), front.get_parameters(), "quantised")


def check_installed() -> None:
    """Raise MissingExtraError unless NNCF is there."""
    _nncf()


def _nncf() -> Any:
    """NNCF, silent on the network as well: it reports its use where nobody has refused."""
    with _variable("NNCF_CI", "1"):
        try:
            import nncf
        except ModuleNotFoundError as error:
            raise missing_extra("Quantisation", "optimize", str(error.name)) from error
    nncf.set_log_level(logging.ERROR)
    return nncf


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
