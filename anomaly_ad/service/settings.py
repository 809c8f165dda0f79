"""What decides how the service behaves, checked."""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OptionError
from ..model import check_threshold
from ..runtime import Device


@dataclass(frozen=True)
class Settings:
    """How requests are taken."""

    # Folders below which files can be named; none: images are uploaded only.
    roots: tuple[Path, ...] = ()
    # Score above which an image is anomalous, where a request names none.
    threshold: float = 0.8
    # Images that have arrived and have no verdict yet; more are refused with status 503.
    queue: int = 64
    # Largest request, and largest file.
    max_bytes: int = 32_000_000
    # Largest image; more pixels are not decoded.
    max_pixels: int = 50_000_000
    # Seconds to send a request, to inspect it, to take its answer.
    timeout: float = 30.0
    # What a client has to send as "Authorization: Bearer <token>".
    token: str | None = None
    # Where models run, and good images that show whether their limits hold there.
    device: Device = field(default_factory=Device)
    check: Path | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        for name in ("queue", "max_bytes", "max_pixels", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(
                    f"{name} is greater than 0 and finite. Received: {getattr(self, name)!r}."
                )

    def lets_in(self, authorization: str) -> bool:
        """Whether a request's Authorization header holds the token; true where none is asked for.

        The comparison takes as long for a wrong token as for a nearly right one.
        """
        if self.token is None:
            return True
        scheme, _, given = authorization.partition(" ")
        digests = (hashlib.sha256(text.encode()).digest() for text in (given.strip(), self.token))
        return scheme.lower() == "bearer" and hmac.compare_digest(*digests)
