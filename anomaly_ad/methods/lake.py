"""LAKE: how improbable an image's code and reconstruction errors are together.

A variational autoencoder whose inner layers are rebuilt too: each layer behind the code is drawn
towards the layer of the same stride before it, as that is for the image without hidden patches. Of
each image one vector is made: the first principal components of its code on a coarse grid, and for
the image and for each of these layers the square of the largest standardised error, and the mean
error. A kernel density of these vectors over good images gives the image score, the negative log
density: an error that is usual for the one code is improbable for the other. The map is that of the
reconstruction error alone.

References
----------
Lv, Yu, Fan, Tang, Tong 2020, Layer-constrained variational autoencoding kernel density estimation
model for anomaly detection, Knowledge-Based Systems 196, 105753: layers of encoder and decoder
drawn together, and the density of the code joined with the reconstruction errors. Deviations: the
code is a map, of which principal components are taken; errors have a place, so that the largest
counts next to the mean (the paper has vectors, and takes their distance and cosine); the encoder's
layers are targets that this term does not move, so they cannot shrink to meet the decoder's; the
density's width is that of `statistics.density.KernelDensity` with Scott's rule. docs/quality.md
says what joining brings.
"""

from __future__ import annotations

from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from ..images import Framing
from ..layers.density import LogDensity
from ..layers.maps import along_axes, coarse_grid, gaussian_matrix
from ..runtime.convert import run_graph
from ..statistics.density import KernelDensity
from ..statistics.moments import Moments
from ..statistics.pca import Subspace
from ..statistics.pool import VectorPool
from .autoencoder import STRIDE, Measured, Tensors
from .base import Arrays, check_state
from .gradient import Items
from .heads import mean_of
from .vae import VAE

_LAYERS = {f"layer_{stride}": stride for stride in (8, STRIDE)}
_PARTS = 4  # of the coarse grid along each axis
_COMPONENTS = 8  # of the code, at most
_IMAGES = 20_000  # that the density is made of, at most; a random sample of more
_PREFIX = "density_"  # of what is stored of the density


class LAKE(VAE):
    """Layer-constrained variational autoencoding kernel density estimation.

    Parameters
    ----------
    framing, patch_size, seed, code_channels, hidden_share, beta
        See `VAE`.
    layer_weight : float
        Weight of the inner layers' mean squared error relative to the reconstruction error, 0 to
        10.
    """

    scores_are_logs = True

    def __init__(
        self,
        framing: Framing,
        patch_size: int,
        seed: int,
        *,
        layer_weight: float,
        **parameters: Any,
    ) -> None:
        self.layer_weight = layer_weight
        super().__init__(framing, patch_size, seed, **parameters)
        found = self.network.output
        before = {name: found[f"encoded_{stride}"] for name, stride in _LAYERS.items()}
        self._encoder = keras.Model(self.network.input, before)
        self._coarse = coarse_grid(found["code"].shape[1:3], (_PARTS, _PARTS))
        self.pool = self._new_pool()

    @property
    def code_length(self) -> int:
        """How many values of a vector are its code; the errors follow."""
        return len(self._coarse) * self.code_channels

    def _new_pool(self) -> VectorPool:
        return VectorPool(self.code_length + 2 * (1 + len(_LAYERS)), _IMAGES, self.seed)

    def loss(self, pictures: keras.KerasTensor, found: Tensors) -> keras.KerasTensor:
        """The loss of the variational autoencoder, and the error of the inner layers."""
        wanted = self._encoder(pictures, training=False)
        errors = [
            ops.mean(ops.square(ops.stop_gradient(wanted[name]) - found[f"decoded_{stride}"]))
            for name, stride in _LAYERS.items()
        ]
        return super().loss(pictures, found) + self.layer_weight * sum(errors) / len(errors)

    def errors(self, pictures: keras.KerasTensor, found: Tensors) -> Tensors:
        """The reconstruction errors, and the squared error of each inner layer."""
        out = super().errors(pictures, found)
        for name, stride in _LAYERS.items():
            difference = found[f"encoded_{stride}"] - found[f"decoded_{stride}"]
            error = ops.mean(ops.square(difference), axis=-1)
            # Smoothed over the patch, as the reconstruction error is, on the layer's own grid.
            sigma = max(self.patch_size / 6 / stride, 0.5)
            blur = [gaussian_matrix(cells, sigma) for cells in error.shape[1:]]
            out[name] = ops.expand_dims(along_axes(ops, error, *blur), 1)
        return out

    def learn_after(self, items: Items, validation: Items) -> None:
        """The errors, then the density of good images."""
        super().learn_after(items, validation)
        measured = self.measured()
        model = keras.Model(measured.inputs, {"vectors": self.vectors(measured)})
        self.pool = self._new_pool()
        for batch in (batch for part in (items, validation) for batch in part):
            self.pool.update(run_graph(model, batch)["vectors"][:, None])

    def score(self, measured: Measured) -> keras.KerasTensor:
        """The negative log density."""
        vectors, code = self.vectors(measured), self.code_length
        subspace = self.code_subspace()
        inside = ops.matmul(vectors[:, :code] - subspace.mean, subspace.basis)
        density = KernelDensity.of(self.reduced(self.pool.vectors))
        return -LogDensity(**vars(density))(ops.concatenate([inside, vectors[:, code:]], axis=1))

    def code_subspace(self) -> Subspace:
        """The principal components of the codes of good images."""
        codes = self.pool.vectors[:, None, : self.code_length]
        return Subspace.of(Moments(1, self.code_length).update(codes), 0.9999, _COMPONENTS)

    def reduced(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors with the components of the code in its place: what the density is of."""
        code = self.code_length
        subspace = self.code_subspace()
        inside = (vectors[:, :code] - subspace.mean) @ subspace.basis
        return np.concatenate([inside, vectors[:, code:]], axis=1)

    def vectors(self, measured: Measured) -> keras.KerasTensor:
        """Code on the coarse grid, largest errors, mean errors: (B, code_length + 2 * 3)."""
        code = measured.found["mean"]
        cells = ops.reshape(code, (-1, self._coarse.shape[1], self.code_channels))
        shares = measured.shares.get(f"layer_{STRIDE}")  # whose grid is the code's
        if shares is not None:
            shares = ops.reshape(shares, (-1, self._coarse.shape[1]))
        coarse = ops.reshape(mean_of(ops, self._coarse, cells, shares), (-1, self.code_length))
        largest = [ops.max(ops.square(e), axis=(1, 2)) for e in measured.excess.values()]
        means = [_mean(error, measured.shares.get(name)) for name, error in measured.errors.items()]
        return ops.concatenate([coarse, ops.stack([*largest, *means], axis=1)], axis=1)

    def state(self) -> dict[str, NDArray[Any]]:
        """The network, its errors, and the vectors that the density is made of."""
        vectors = {f"{_PREFIX}{name}": array for name, array in self.pool.arrays().items()}
        return {**super().state(), **vectors}

    def restore(self, state: Arrays) -> Self:
        """Take over what `state` gave."""
        own = {n: array for n, array in state.items() if not n.startswith(_PREFIX)}
        super().restore(own)
        vectors = {n.removeprefix(_PREFIX): state[n] for n in state if n not in own}
        check_state(vectors, self.pool.shapes())
        self.pool = self._new_pool().restore(vectors)
        return self


def _mean(error: keras.KerasTensor, shares: keras.KerasTensor | None) -> keras.KerasTensor:
    """The mean of an error (B, kinds, h, w) over what counts of the image: (B,)."""
    if shares is None:
        return ops.mean(error, axis=(1, 2, 3))
    total = ops.maximum(ops.sum(shares, axis=(1, 2)), 1e-6)
    return ops.sum(ops.mean(error, axis=1) * shares, axis=(1, 2)) / total
