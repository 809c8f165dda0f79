"""Normalising flows over the channels of feature maps: invertible networks of known volume.

A flow maps the vector of each cell to one that is to be a standard Gaussian. It consists of
affine couplings: half of the channels are kept, and say by a small network how the other half is
scaled and shifted. So it can be undone, and the logarithm of the determinant of its Jacobian is the
sum of the logarithms of the scales.

References
----------
Dinh, Sohl-Dickstein, Bengio 2017, Density Estimation Using Real NVP, ICLR, arXiv 1605.08803,
equations 3 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from .gradient import Tensors
from .heads import highest
from .maps import MapDetector, mean_over

# The network of a coupling: its number, shape (h, w, C) of what is kept, channels of what it says
# -> a model (B, h, w, C) -> (B, h, w, channels) that says zero at first.
Subnet = Callable[[int, tuple[int, int, int], int], keras.Model]


class Flow:
    """Affine couplings, each followed by a fixed permutation of the channels.

    Parameters
    ----------
    shape : (int, int, int)
        (height, width, C) of the map, two channels at least.
    subnet : callable
        Makes the network of a coupling.
    steps : int
        Number of couplings.
    clamp : float
        The logarithm of a scale is clamp * tanh of what the network says.

    Attributes
    ----------
    model : keras.Model
        Map (B, height, width, C) -> the map that should be Gaussian, of the same shape, and the
        logarithm of the determinant that falls to each cell, (B, height, width).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        subnet: Subnet,
        *,
        steps: int,
        clamp: float,
    ) -> None:
        height, width, channels = shape
        self.clamp = clamp
        self.kept = channels - channels // 2
        moved = channels - self.kept
        inner = (height, width, self.kept)
        self.subnets = [subnet(number, inner, 2 * moved) for number in range(steps)]
        random = np.random.default_rng(channels)  # the same for all seeds: not part of a state
        self.orders = [random.permutation(channels) for _ in range(steps)]
        x = keras.Input(shape)
        self.model = keras.Model(x, self._forward(x))

    def _forward(self, x: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        log_scales = []
        for subnet, order in zip(self.subnets, self.orders, strict=True):
            kept, moved = x[..., : self.kept], x[..., self.kept :]
            log_scale, shift = self._said(subnet, kept)
            log_scales.append(log_scale)
            moved = moved * ops.exp(log_scale) + shift
            x = ops.matmul(ops.concatenate([kept, moved], axis=-1), _permutation(order))
        return x, ops.sum(ops.concatenate(log_scales, axis=-1), axis=-1)

    def inverse(self, z: keras.KerasTensor) -> keras.KerasTensor:
        """What the model made `z` of."""
        for subnet, order in zip(reversed(self.subnets), reversed(self.orders), strict=True):
            z = ops.matmul(z, _permutation(order).T)
            kept, moved = z[..., : self.kept], z[..., self.kept :]
            log_scale, shift = self._said(subnet, kept)
            z = ops.concatenate([kept, (moved - shift) * ops.exp(-log_scale)], axis=-1)
        return z

    def _said(
        self, subnet: keras.Model, kept: keras.KerasTensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        said = subnet(kept)
        moved = said.shape[-1] // 2
        return self.clamp * ops.tanh(said[..., :moved]), said[..., moved:]


def log_density(z: keras.KerasTensor, log_determinant: keras.KerasTensor) -> keras.KerasTensor:
    """Of each cell under a flow, by what `Flow.model` gives: (B, h, w, C), (B, h, w) -> (B, h, w).

    log p = -C/2 log 2 pi - |z|² / 2 + log |det J|.
    """
    constant = z.shape[-1] / 2 * math.log(2 * math.pi)
    return log_determinant - ops.sum(ops.square(z), axis=-1) / 2 - constant


class FlowDetector(MapDetector):
    """A flow for each map of a frozen backbone; what is improbable under it is odd.

    A cell of the anomaly map is 1 - sigmoid(log p / C), for C channels: bounded, so that no cell of
    one layer outweighs all others. The map is the mean over those of the layers, enlarged and
    blurred, and the image score its maximum.

    Parameters
    ----------
    framing, patch_size, seed, backbone, layers, blur
        See `MapDetector`.
    steps : int
        Couplings of each flow.
    """

    clamp: float

    def __init__(
        self, framing: Framing, patch_size: int, seed: int, *, steps: int, **parameters: Any
    ) -> None:
        super().__init__(framing, patch_size, seed, **parameters)
        seeds = iter(range(1000 * seed, 1000 * seed + 1000))
        self.flows = [
            Flow(shape, self.subnets(shape, seeds), steps=steps, clamp=self.clamp)
            for shape in self.shapes
        ]
        self.networks = {f"flow_{n}": flow.model for n, flow in enumerate(self.flows)}

    def subnets(self, shape: tuple[int, int, int], seeds: Iterator[int]) -> Subnet:
        """What makes the networks of the couplings for a map (height, width, C)."""
        raise NotImplementedError

    def loss(self, log_p: keras.KerasTensor, channels: int) -> keras.KerasTensor:
        """The loss of each cell, of the logarithm of its density."""
        raise NotImplementedError

    def log_densities(self, features: Tensors, *, training: bool) -> list[keras.KerasTensor]:
        """Of the cells of each map: (B, h, w)."""
        return [
            log_density(*flow.model(standard(features), training=training))
            for standard, flow in zip(self.standards, self.flows, strict=True)
        ]

    def batch_loss(self, x: Any, y: Any, *, training: bool) -> keras.KerasTensor:
        """The mean over the cells, summed over the layers."""
        densities = self.log_densities(x, training=training)
        losses = [
            mean_over(self.loss(log_p, channels)[..., None], standard.shares(ops, x))
            for log_p, standard, (_, _, channels) in zip(
                densities, self.standards, self.shapes, strict=True
            )
        ]
        return sum(losses[1:], losses[0])

    def outputs(self, features: Tensors) -> Tensors:
        """The mean of the enlarged maps."""
        densities = self.log_densities(features, training=False)
        cells = [
            improbability(log_p, channels)
            for log_p, (_, _, channels) in zip(densities, self.shapes, strict=True)
        ]
        maps = self.enlarged(cells, features)
        anomaly_map = sum(maps[1:], maps[0]) * (1 / len(maps))
        return {"anomaly_map": anomaly_map, "score": highest(ops, anomaly_map)}


def improbability(log_p: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    """1 - sigmoid(log p / channels), from 0 to 1."""
    return ops.sigmoid(-log_p / channels)


def _permutation(order: NDArray[np.intp]) -> NDArray[np.float32]:
    return np.eye(len(order), dtype=np.float32)[:, order]
