"""Many images as a model sees them: on disk, in batches, split, and known by their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError, OptionError, PathError, PoseError
from ..support import Spool, ordered_map, say
from ..workers import current
from .formats import Pixels
from .framing import Framing
from .photograph import Photograph, of_pages
from .tiles import TileViews


@dataclass(frozen=True, eq=False)
class SeenImage:
    """The views of an image of a set, see `tiles.Seen`."""

    views: NDArray[np.uint8]
    tiles: Sequence[int]


class ImageSet:
    """The views of images in a temporary file, or in memory; re-iterable, in order.

    Indexing with integers or a slice gives the views of those images one after the other, as a new
    array of uint8 (B, height, width, channels); iterating yields such arrays, of at most 32 views
    each. An image has up to T views, see `Framing.take`. Use it as a context manager: leaving it
    removes the file.

    Parameters
    ----------
    items : Spool or ndarray of uint8, shape (N * T, height, width, channels)
        The views of all images; or an array of shape (N, T, height, width, channels).
    rows : sequence of ndarray of int, optional
        Where in `items` the views of each image are; None for one after the other.
    n_views : int
        T.
    per_epoch : int, optional
        How many images an epoch of training shows, another draw each time; None for all.
    """

    BATCH = 32

    def __init__(
        self,
        items: Spool | NDArray[np.uint8],
        rows: Sequence[NDArray[np.integer]] | None = None,
        n_views: int = 1,
        per_epoch: int | None = None,
    ) -> None:
        if isinstance(items, np.ndarray) and items.ndim == 5:
            n_views = items.shape[1]
            items = items.reshape(-1, *items.shape[2:])
        self._items = items
        self._n_views = n_views
        self.per_epoch = per_epoch
        self._rows = [*np.arange(len(items)).reshape(-1, n_views)] if rows is None else rows
        self._digests: list[str] | None = None  # once they were asked for

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
        count = framing.n_views
        spool = Spool(len(paths) * count, framing.view_shape, np.uint8)
        try:
            broken: list[str] = []
            rows = []
            n_stacks = 0
            if current().spreads:  # processes elsewhere have a current folder of their own
                paths = [Path(os.path.abspath(path)) for path in paths]
            for index, read in enumerate(current().map(_Reading(framing), paths)):
                if isinstance(read, str):
                    broken.append(read)
                else:
                    seen, has_pages = read
                    rows.append(index * count + np.array(seen.tiles))
                    for row, view in zip(rows[-1], seen.views, strict=True):
                        spool[int(row)] = view
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
            return cls(spool, rows, count)
        except BaseException:
            spool.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if isinstance(self._items, Spool):
            self._items.close()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: NDArray[np.integer] | slice) -> NDArray[np.uint8]:
        return self._items[_together(_chosen(self._rows, indices))]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        rows = _together(self._rows)
        for start in range(0, len(rows), self.BATCH):
            yield self._items[rows[start : start + self.BATCH]]

    def singly(self) -> Iterator[SeenImage]:
        """The views of each image."""
        for rows in self._rows:
            yield SeenImage(self._items[rows], (rows % self._n_views).tolist())

    def digests(self) -> list[str]:
        """A hash of each image as 16 hexadecimal digits; images that look the same share it."""
        if self._digests is None:
            self._digests = [image_digest(image.views) for image in self.singly()]
        return [*self._digests]

    def packed(self, indices: NDArray[np.integer]) -> ImageSet:
        """Some of the images in memory, so that they can be pickled."""
        rows = _chosen(self._rows, indices)
        items = np.zeros((len(rows) * self._n_views, *self._items.shape[-3:]), np.uint8)
        places = [n * self._n_views + some % self._n_views for n, some in enumerate(rows)]
        if len(rows):
            items[_together(places)] = self._items[_together(rows)]
        return ImageSet(items, places, self._n_views)

    def subset(self, indices: NDArray[np.integer]) -> ImageSet:
        """These images alone, without copying them; it lives no longer than the whole."""
        found = ImageSet(self._items, _chosen(self._rows, indices), self._n_views)
        if self._digests is not None:
            found._digests = [self._digests[index] for index in indices]
        return found

    @property
    def total_views(self) -> int:
        """How many views all images have together."""
        return sum(len(rows) for rows in self._rows)

    def as_views(self, per_epoch: int | None = None) -> ImageSet:
        """Each view as an image of its own, without copying."""
        rows = _together(self._rows)
        return ImageSet(self._items, [*rows[:, None]], per_epoch=per_epoch)

    def spread(self, most: int) -> ImageSet:
        """At most so many of the images, evenly spread over the set."""
        if len(self) <= most:
            return self
        return self.subset(np.linspace(0, len(self) - 1, most).round().astype(np.intp))


def _chosen(
    rows: Sequence[NDArray[np.integer]], indices: NDArray[np.integer] | slice
) -> Sequence[NDArray[np.integer]]:
    if isinstance(indices, slice):
        return rows[indices]
    return [rows[index] for index in indices]


def _together(rows: Sequence[NDArray[np.integer]]) -> NDArray[np.integer]:
    return np.concatenate(rows) if len(rows) else np.empty(0, np.intp)


def image_digest(views: Pixels | TileViews) -> str:
    """A hash of an image as a model sees it, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(np.asarray(view).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Reading:
    """The job of reading files."""

    framing: Framing

    def start(self) -> Callable[[Iterable[Path]], Iterable[tuple[SeenImage, bool] | str]]:
        return lambda paths: ordered_map(lambda path: _try_read(path, self.framing), paths)


def _try_read(path: Path, framing: Framing) -> tuple[SeenImage, bool] | str:
    try:
        photo = Photograph.read(path, framing)
        taken = photo.take()
        return SeenImage(np.stack([*taken.views]), taken.tiles), photo.n_pages > 1
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
