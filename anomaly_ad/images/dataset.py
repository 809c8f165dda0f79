"""Many images as a model sees them: on disk, in batches, split, and known by their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError, OptionError, PathError, PoseError
from ..support import Spool, ordered_map, say
from .formats import Image, Pixels
from .framing import Framing
from .photograph import Photograph, of_pages


class ImageSet:
    """The views of images in a temporary file, or in memory; re-iterable, in order.

    Indexing with integers or a slice gives the views of those images one after the other, as a new
    array of uint8 (B, height, width, channels); iterating yields such arrays. An image has T views,
    see `Framing.views`. Use it as a context manager: leaving it removes the file.

    Parameters
    ----------
    items : Spool or ndarray of uint8, shape (N, T, height, width, channels)
        The images.
    indices : ndarray of int, optional
        Which of them, in which order; None for all.
    """

    BATCH = 32

    def __init__(
        self, items: Spool | NDArray[np.uint8], indices: NDArray[np.integer] | None = None
    ) -> None:
        self._items = items
        self._indices = np.arange(len(items)) if indices is None else np.asarray(indices)

    @classmethod
    def decode(
        cls, paths: Sequence[Path], framing: Framing, step: Callable[[], None] = lambda: None
    ) -> Self:
        """Read, check and frame all files, in threads.

        Parameters
        ----------
        paths : sequence of Path
            Image files.
        framing : Framing
            What the model takes.
        step : callable, optional
            Called after each image, for a progress bar.

        Raises
        ------
        DataError
            Files cannot be read; the message lists every one of them.
        OutputError
            The temporary file does not fit on the disk.
        """
        spool = Spool(len(paths), (framing.n_views, *framing.view_shape), np.uint8)
        try:
            broken: list[str] = []
            n_stacks = 0
            for index, photo in enumerate(ordered_map(lambda p: _try_read(p, framing), paths)):
                if isinstance(photo, str):
                    broken.append(photo)
                else:
                    views, has_pages = photo
                    spool[index] = views
                    n_stacks += has_pages
                step()
            if n_stacks:
                say(of_pages(n_stacks))
            if broken:
                listed = "\n  ".join(broken)
                raise DataError(
                    f"{len(broken)} of {len(paths)} training images cannot be used. Replace them "
                    f"or take them out, then train again:\n  {listed}"
                )
            return cls(spool)
        except BaseException:
            spool.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._items, Spool):
            self._items.close()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, indices: NDArray[np.integer] | slice) -> NDArray[np.uint8]:
        return self._items[self._indices[indices]].reshape(-1, *self._items.shape[-3:])

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(self), self.BATCH):
            yield self[start : start + self.BATCH]

    def singly(self) -> Iterator[NDArray[np.uint8]]:
        """The views of each image, shape (T, height, width, channels)."""
        for batch in self:
            yield from batch.reshape(-1, *self._items.shape[-4:])

    def digests(self) -> list[str]:
        """A hash of each image as 16 hexadecimal digits; images that look the same share it."""
        return [image_digest(views) for views in self.singly()]

    def subset(self, indices: NDArray[np.integer]) -> ImageSet:
        """These images alone, without copying them; it lives no longer than the whole."""
        return ImageSet(self._items, self._indices[indices])


def image_digest(views: Pixels) -> str:
    """A hash of an image as a model sees it, 16 hexadecimal digits."""
    return hashlib.sha256(views.tobytes()).hexdigest()[:16]


def _try_read(path: Path, framing: Framing) -> tuple[Image, bool] | str:
    try:
        photo = Photograph.read(path, framing)
        return photo.views(), photo.n_pages > 1
    except PoseError as error:
        return f"{path}: {error}"
    except (ImageError, PathError) as error:
        return str(error)


def split(count: int, sizes: Sequence[int], seed: int) -> list[NDArray[np.intp]]:
    """Split `count` images into disjoint random parts, the same ones for the same seed.

    Parameters
    ----------
    count : int
        Number of images.
    sizes : sequence of int
        Sizes of all parts but the first, which gets the rest.
    seed : int
        Seed of the permutation.

    Returns
    -------
    list of ndarray of int
        Sorted indices; one array more than `sizes`.
    """
    rest = count - sum(sizes)
    if rest < 1 or min(sizes, default=0) < 0:
        raise OptionError(f"{count} images cannot be split into parts of {list(sizes)} and a rest.")
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(part) for part in np.split(order, np.cumsum([rest, *sizes])[:-1])]


def split_groups(
    groups: NDArray[np.intp], sizes: Sequence[int], seed: int
) -> list[NDArray[np.intp]]:
    """As `split`, but whole groups of images; where each is by itself, the same parts.

    Parameters
    ----------
    groups : ndarray of int, shape (N,)
        The group of each image, numbered from 0.
    sizes : sequence of int
        Groups in all parts but the first, which gets the rest.
    seed : int
        Seed of the permutation.

    Returns
    -------
    list of ndarray of int
        Sorted indices of images; one array more than `sizes`.
    """
    parts = split(int(groups.max()) + 1, sizes, seed)
    return [np.flatnonzero(np.isin(groups, part)) for part in parts]
