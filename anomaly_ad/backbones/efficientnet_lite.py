"""EfficientNet-Lite in Keras: EfficientNet without squeeze-and-excite and with ReLU6.

References
----------
Tan, Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, arXiv
1905.11946, table 1; the lite variants are Google's, github.com/tensorflow/tpu,
models/official/efficientnet/lite: stem and head keep their width, the first and the last stage keep
their depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from numpy.typing import NDArray

from ..errors import BackboneError

# (kernel, stride, expansion, channels, repeats) of the stages 0 to 6 at width and depth 1.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_SCALES = {  # width, depth
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
_STEM, _HEAD, _CLASSES = 32, 1280, 1000
_EPSILON = 1e-3  # of batch normalisation

NAMES = tuple(_SCALES)


def efficientnet_lite(
    name: str, tensors: Mapping[str, NDArray[Any]], size: tuple[int | None, int | None]
) -> keras.Model:
    """Build a network and give it its weights.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    tensors : mapping of str to ndarray
        The weights under their names in the PyTorch package; convolutions as (out, in, h, w).
    size : (int or None, int or None)
        (height, width) of the input in pixels.

    Returns
    -------
    keras.Model
        RGB images, float32 (B, H, W, 3) in 0..255 -> the logits of the 1,000 classes of ImageNet,
        (B, 1000). The layers "stage0" to "stage6" hold the stages' outputs, at strides 2, 4, 8, 16,
        16, 32 and 32.

    Raises
    ------
    BackboneError
        A tensor is missing, left over, or of another shape than the network's.
    """
    weights = _Weights(tensors)
    images = keras.Input((*size, 3), name="pictures")
    x = (images - 127.0) / 128.0
    x = weights.convolution(x, "_conv_stem", "_bn0", _STEM, 3, 2)
    block = 0
    for stage, (kernel, stride, expansion, filters, count) in enumerate(_stages(name)):
        for repeat in range(count):
            x = _inverted_bottleneck(
                x,
                weights,
                f"_blocks.{block}.",
                kernel,
                stride if repeat == 0 else 1,
                expansion,
                filters,
            )
            block += 1
        x = kl.Identity(name=f"stage{stage}")(x)
    x = weights.convolution(x, "_conv_head", "_bn1", _HEAD, 1)
    x = kl.GlobalAveragePooling2D()(x)
    classify = kl.Dense(_CLASSES, name="logits")
    logits = classify(x)
    weights.give(classify, [("_fc.weight", (1, 0)), ("_fc.bias", (0,))])
    weights.check_none_left(name)
    model = keras.Model(images, logits, name=name)
    model.trainable = False
    return model


def _stages(name: str) -> list[tuple[int, int, int, int, int]]:
    width, depth = _SCALES[name]
    last = len(_STAGES) - 1
    return [
        (
            kernel,
            stride,
            expansion,
            _round_filters(filters * width),
            count if stage in (0, last) else math.ceil(count * depth),
        )
        for stage, (kernel, stride, expansion, filters, count) in enumerate(_STAGES)
    ]


def _round_filters(filters: float) -> int:
    """To a multiple of 8, and never down by more than a tenth."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def _inverted_bottleneck(
    x: keras.KerasTensor,
    weights: _Weights,
    name: str,
    kernel: int,
    stride: int,
    expansion: int,
    filters: int,
) -> keras.KerasTensor:
    """Expand, filter each channel, project; with a shortcut where the shape stays."""
    entry = x
    channels = x.shape[-1]
    if expansion != 1:
        x = weights.convolution(x, f"{name}_expand_conv", f"{name}_bn0", channels * expansion, 1)
    x = weights.convolution(x, f"{name}_depthwise_conv", f"{name}_bn1", None, kernel, stride)
    x = weights.convolution(x, f"{name}_project_conv", f"{name}_bn2", filters, 1, activation=False)
    return kl.Add()([x, entry]) if stride == 1 and channels == filters else x


class _Weights:
    """Builds layers and hands each its tensors, once."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._left = {name: tensor for name, tensor in tensors.items() if "num_batches" not in name}

    def convolution(
        self,
        x: keras.KerasTensor,
        name: str,
        normalisation: str,
        filters: int | None,
        kernel: int,
        stride: int = 1,
        *,
        activation: bool = True,
    ) -> keras.KerasTensor:
        """Convolution (of each channel alone where `filters` is None), normalisation, ReLU6.

        The normalisation, which is fixed, is folded into the convolution: half of the layers are
        built and converted in half of the time.
        """
        options: dict[str, Any] = {"strides": stride, "padding": "same"}
        if filters is None:
            layer, axes = kl.DepthwiseConv2D(kernel, **options), (2, 3, 0, 1)
        else:
            layer, axes = kl.Conv2D(filters, kernel, **options), (2, 3, 1, 0)
        x = layer(x)
        expected, bias = (weights.shape for weights in layer.get_weights())
        weight = self._take(f"{name}.weight", axes, expected)
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (
            self._take(f"{normalisation}.{part}", (0,), bias).astype(np.float64) for part in parts
        )
        scale = gamma / np.sqrt(variance + _EPSILON)
        scaled = weight * (scale[:, None] if filters is None else scale)
        layer.set_weights([scaled.astype(np.float32), (beta - mean * scale).astype(np.float32)])
        return kl.ReLU(6.0)(x) if activation else x

    def give(self, layer: kl.Layer, sources: list[tuple[str, tuple[int, ...]]]) -> None:
        """Set a layer's weights from tensors with their axes put in the layer's order."""
        shapes = (weights.shape for weights in layer.get_weights())
        layer.set_weights(
            [
                self._take(name, axes, shape)
                for (name, axes), shape in zip(sources, shapes, strict=True)
            ]
        )

    def _take(
        self, name: str, axes: tuple[int, ...], expected: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """A tensor with its axes in another order, once; it is to have a shape."""
        tensor = self._left.pop(name, None)
        if tensor is None or tensor.ndim != len(axes):
            raise _misfit(name, expected, None if tensor is None else tensor.shape)
        value = np.transpose(tensor, axes)
        if value.shape != expected or not np.isfinite(value).all():
            raise _misfit(name, expected, value.shape)
        return value

    def check_none_left(self, name: str) -> None:
        """Raise BackboneError if a tensor found no place."""
        if self._left:
            raise BackboneError(
                f"{name} has no place for the weights {', '.join(sorted(self._left)[:4])}: they "
                "are those of another network."
            )


def _misfit(
    name: str, expected: tuple[int, ...], received: tuple[int, ...] | None
) -> BackboneError:
    found = "missing" if received is None else f"of shape {received}, or not finite"
    return BackboneError(
        f"The weights do not fit the network: {name} should have the shape {expected} and is "
        f"{found}. They are those of another network."
    )
