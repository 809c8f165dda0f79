"""The bounded queue: how many images, and how many bytes, are in the house at a time.

A request comes in, is worked on, and its answer goes out. It holds the places of its images while
it is worked on only: a client that is slow to send or to take holds none. What it makes the house
keep is counted in bytes all the time. Where they run out, the client that keeps the house waiting
for longest has to go; where nobody does, the newcomer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .refusal import Refusal

PATIENCE = 2.0  # seconds that the house waits for a client while others lack room


class Admission:
    """Counts what is in the house. Used by the event loop alone.

    Parameters
    ----------
    places : int
        Images that are worked on, or wait for it, at a time.
    max_bytes : int
        Bytes of requests and answers at a time.
    """

    def __init__(self, places: int, max_bytes: int) -> None:
        self.places = places
        self.max_bytes = max_bytes
        self.images = 0
        self.bytes = 0
        # Those whose client has to act, and since when; the longest-waiting first.
        self._waiting: dict[Stay, float] = {}

    @contextmanager
    def enter(self, give_up: Callable[[], None] = lambda: None) -> Iterator[Stay]:
        """A request's stay, from its headers to the end of its answer.

        Parameters
        ----------
        give_up : callable
            Ends a request whose client has kept the house waiting.

        Raises
        ------
        Refusal
            503: there is no place now, so it is of no use to send images.
        """
        if self.images >= self.places:
            raise _full()
        stay = Stay(self, give_up)
        stay.wait_for_client()
        try:
            yield stay
        finally:
            stay.leave()

    def make_room(self, more: int, newcomer: Stay) -> bool:
        """Whether this many bytes more have room, where need be after others have gone."""
        now = time.monotonic()
        while self.bytes + more > self.max_bytes:
            stay, since = next(
                (one for one in self._waiting.items() if one[0].bytes and one[0] is not newcomer),
                (newcomer, now),
            )
            if now - since < PATIENCE:
                return False
            stay.leave()
            stay.give_up()
        return True


class Stay:
    """What one request holds."""

    def __init__(self, house: Admission, give_up: Callable[[], None]) -> None:
        self._house = house
        self.give_up = give_up
        self.images = 0
        self.bytes = 0

    @property
    def places(self) -> int:
        """The most images that a request can hold."""
        return self._house.places

    def wait_for_client(self) -> None:
        """It is the client's turn from now on: to send more, or to take more of the answer."""
        self._house._waiting.pop(self, None)  # its place is behind the others now
        self._house._waiting[self] = time.monotonic()

    def take_bytes(self, more: int) -> None:
        """Hold this many bytes more; Refusal 503 if there is no room for them."""
        if not self._house.make_room(more, self):
            raise _full()
        self._house.bytes += more
        self.bytes += more
        if self in self._house._waiting:
            self.wait_for_client()  # it has just sent something: the wait begins anew

    def take_places(self, images: int) -> None:
        """The request is complete: hold places for its images; Refusal 503 if there are none."""
        self._house._waiting.pop(self, None)
        if self._house.images + images > self._house.places:
            raise _full()
        self._house.images += images
        self.images += images

    def begin_answer(self, size: int) -> None:
        """Give everything back but the bytes of the answer, until the client has taken it.

        It was worked for, so it is not refused where it has no room; others make way, if any can.
        """
        self._give_back()
        self._house.make_room(size, self)
        self._house.bytes += size
        self.bytes += size
        self.wait_for_client()

    def leave(self) -> None:
        """Give everything back."""
        self._house._waiting.pop(self, None)
        self._give_back()

    def _give_back(self) -> None:
        self._house.images -= self.images
        self._house.bytes -= self.bytes
        self.images = self.bytes = 0


def _full() -> Refusal:
    return Refusal(503, "The queue is full. Send the request again later.")
