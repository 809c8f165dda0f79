"""Good images with rendered defects on them, to be inspected."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from ..data.rendered import defect_size, render_defect
from ..errors import DataError, ImageError
from ..images import Framing, Photograph, find_part
from ..images.sources import Source

# A JPEG that changes values by one.
_FINEST = [cv2.IMWRITE_JPEG_QUALITY, 100]
_FINEST += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclass(frozen=True, eq=False)
class RenderedSource(Source):
    """A good image with a defect on it, made when it is read."""

    kind: str = ""
    size: float = 0.0
    contrast: float = 0.0
    seed: tuple[int, ...] = ()
    measured: list[float] = field(default_factory=list)

    def read(self, framing: Framing) -> Photograph:
        """As of a file; ImageError where the defect does not fit."""
        assert self.path is not None
        rng = np.random.default_rng(self.seed)
        photo = Photograph.read(self.path, framing)
        picture, where = photo.picture(), None
        if framing.has_region and (where := photo.take().inspected()) is not None:
            part = find_part(picture)
            where = where if part is None else where & part
        try:
            image, mask = render_defect(
                picture, self.kind, self.size, self.contrast, rng, where=where
            )
        except DataError as error:  # it does not fit here
            raise ImageError(str(error)) from error
        self.measured[:] = [defect_size(mask)]
        if photo.data is None:
            return Photograph.of_picture(image, framing, self.name)
        # It was decoded at a reduced scale, and so is what was rendered.
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".jpg", bgr, _FINEST)[1].tobytes()
        return Photograph.decode(data, self.name, framing)
