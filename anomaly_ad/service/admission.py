"""The bounded queue: how many images, and how many bytes of them, are in the house at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .refusal import Refusal


class Admission:
    """Counts what was accepted and is not yet answered. Used by the event loop alone.

    Parameters
    ----------
    places : int
        Images at a time.
    max_bytes : int
        Bytes of requests at a time.
    """

    def __init__(self, places: int, max_bytes: int) -> None:
        self.places = places
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0

    @contextmanager
    def enter(self) -> Iterator[Stay]:
        """A request's stay; it takes the place of one image, and leaving gives everything back.

        Raises
        ------
        Refusal
            503: there is no place.
        """
        stay = Stay(self)
        try:
            stay.take_images(1)
            yield stay
        finally:
            self.images -= stay.images
            self.bytes -= stay.bytes


class Stay:
    """What one request holds."""

    def __init__(self, house: Admission) -> None:
        self._house = house
        self.images = 0
        self.bytes = 0

    @property
    def places(self) -> int:
        """The most images that a request can hold."""
        return self._house.places

    def take_images(self, total: int) -> None:
        """Hold places for this many images in total; Refusal 503 if there are not as many."""
        more = total - self.images
        if self._house.images + more > self._house.places:
            raise _full()
        self._house.images += more
        self.images = total

    def take_bytes(self, more: int) -> None:
        """Hold this many bytes more; Refusal 503 if there is no room for them."""
        if self._house.bytes + more > self._house.max_bytes:
            raise _full()
        self._house.bytes += more
        self.bytes += more


def _full() -> Refusal:
    return Refusal(503, "The queue is full. Send the request again later.")
