"""What methods have in common that are trained by gradient on the vectors of a grid's cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ..backbones.networks import on_the_coarsest_grid
from ..images import Framing
from .gradient import Tensors
from .maps import MapDetector

_CELL = 8  # pixels


class CellDetector(MapDetector):
    """A vector of pretrained features per cell of a grid of about 8 x 8 pixels each.

    The maps of the layers lie on one grid, all but the coarsest averaged over 3 x 3 of their own
    cells first, which those of the coarsest see more than anyway.

    Parameters
    ----------
    framing, patch_size, seed, backbone, layers, blur
        See `MapDetector`.

    Attributes
    ----------
    shape : (int, int, int)
        (height, width, channels) of the grid.
    head : MapHead
        Cells -> map.
    standard : Standard
        Features -> vectors.
    """

    def __init__(self, framing: Framing, patch_size: int, seed: int, **parameters: Any) -> None:
        super().__init__(framing, patch_size, seed, **parameters)
        (self.shape,), (self.standard,) = self.shapes, self.standards
        self.head = self.standard.head

    def maps(self, layers: Sequence[keras.KerasTensor]) -> Tensors:
        """One map, "features"."""
        rows = [each.shape[1] for each in layers]
        averaged = [
            each
            if each.shape[1] == min(rows) < max(rows)
            else ops.average_pool(each, 3, 1, padding="same")
            for each in layers
        ]
        grid = [max(pixels // _CELL, 1) for pixels in self.framing.size]
        return {"features": on_the_coarsest_grid(averaged, at_least=(grid[0], grid[1]))}
