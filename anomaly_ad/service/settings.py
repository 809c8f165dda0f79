"""What decides how the service behaves, checked."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError
from ..model.calibration import check_threshold

TOKEN_VARIABLE = "ANOMALY_AD_TOKEN"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHORTEST_TOKEN = 16  # characters


@dataclass(frozen=True)
class Settings:
    """How requests are taken.

    Parameters
    ----------
    roots : tuple of Path
        Folders below which files can be named; none: images are uploaded only.
    threshold : float
        Score above which an image is anomalous, where a request names none.
    queue : int
        Images that have arrived and are not yet judged; more are refused with status 503.
    max_bytes : int
        Largest request, and largest file.
    max_pixels : int
        Largest image; more pixels are not decoded.
    timeout : float
        Seconds that a client may take to send a request and to take its answer, and that an
        image may wait for its verdict.
    token : str or None
        What a client has to send as ``Authorization: Bearer <token>``.
    """

    roots: tuple[Path, ...] = ()
    threshold: float = 0.8
    queue: int = 64
    max_bytes: int = 32_000_000
    max_pixels: int = 50_000_000
    timeout: float = 30.0
    token: str | None = None

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        for name in ("queue", "max_bytes", "max_pixels", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise OptionError(
                    f"{name} is greater than 0 and finite. Received: {getattr(self, name)!r}."
                )

    def lets_in(self, authorization: bytes) -> bool:
        """Whether a request's Authorization header holds the token; true where none is asked for.

        The comparison takes as long for a wrong token as for a nearly right one.
        """
        if self.token is None:
            return True
        scheme, _, given = authorization.partition(b" ")
        digests = (hashlib.sha256(text).digest() for text in (given.strip(), self.token.encode()))
        return scheme.lower() == b"bearer" and hmac.compare_digest(*digests)


def name_models(given: Sequence[str]) -> dict[str, Path]:
    """Arguments MODEL and NAME=MODEL -> directory by name; the name of a bare one is its folder's.

    Raises
    ------
    OptionError
        A name is given twice, or is none.
    """
    named: dict[str, Path] = {}
    for entry in given:
        name, equals, path = entry.partition("=")
        if not equals or os.path.isdir(entry):
            name, path = Path(os.path.abspath(entry)).name, entry
        if not _NAME.fullmatch(name):
            raise OptionError(
                "The name of a model is made of letters, digits, '.', '_' and '-'. Name it: "
                f"NAME=MODEL. Received: {entry!r}."
            )
        if name in named:
            raise OptionError(f"Two models are called {name!r}. Name them: NAME=MODEL.")
        named[name] = Path(path)
    return named


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token from a file or, without one, from the environment; None where there is neither.

    It is no option of the command line, where every user of the machine could read it.

    Raises
    ------
    OptionError
        The file cannot be read, or the token is too short to be one.
    """
    if file is not None:
        try:
            token, source = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, ValueError) as error:
            raise OptionError(f"The token cannot be read from {file}: {error}.") from error
    elif TOKEN_VARIABLE in environment:
        token, source = environment[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return None
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise OptionError(
            f"A token has at least {_SHORTEST_TOKEN} printable characters, all of them ASCII; that "
            f"in {source} has {len(token)}. Make one with: openssl rand -hex 32"
        )
    return token
