"""Verdicts to an HTTP address, as the service answers, signed where a secret is given."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from .._version import __version__
from ..errors import OptionError
from .receivers import NotTakenError

_SECONDS = 10.0  # to connect, and to wait for an answer
_LEAST = 16  # characters of a secret


class Webhook:
    """Posts JSON and takes any answer 2xx for an acknowledgement.

    Headers are those of Standard Webhooks: webhook-id is the key of the image, the same each time
    that it is sent, also as Idempotency-Key; webhook-timestamp; and, with a secret,
    webhook-signature: ``v1,`` and the base64 of the HMAC-SHA256 of "id.timestamp.body".

    Parameters
    ----------
    url : str
        http or https. Redirects are not followed.
    secret : bytes, optional
        For the signature.

    Raises
    ------
    OptionError
        The URL is none.
    """

    name = "webhook"

    def __init__(self, url: str, secret: bytes | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError(
                f"A webhook is an http or https URL, such as https://line4/verdicts. Received: "
                f"{url!r}."
            )
        self._url = url
        self._secret = secret
        self._pool = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=_SECONDS))

    def send(self, key: str, answer: dict[str, Any]) -> None:
        """See `Receiver.send`."""
        body = json.dumps({"key": key, **answer}).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": f"anomaly-ad/{__version__}",
            "idempotency-key": key,
            "webhook-id": key,
            "webhook-timestamp": str(int(time.time())),
        }
        if self._secret is not None:
            signed = f"{key}.{headers['webhook-timestamp']}.".encode() + body
            headers["webhook-signature"] = signature(self._secret, signed)
        try:
            found = self._pool.request("POST", self._url, body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise NotTakenError(f"{type(error).__name__}: {error}", is_away=True) from error
        if not 200 <= found.status < 300:
            # These say that the receiver is busy or away, not that this verdict is wrong.
            is_away = found.status in (401, 403, 404, 408, 429) or found.status >= 500
            words = found.data[:200].decode("utf-8", "replace")
            raise NotTakenError(f"status {found.status} {words}".strip(), is_away=is_away)

    def close(self) -> None:
        """End the connections."""
        self._pool.clear()


def signature(secret: bytes, signed: bytes) -> str:
    """The header webhook-signature for ``id.timestamp.body``."""
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def read_secret(file: Path) -> bytes:
    """The secret in a file, without spaces around it; after ``whsec_`` it is base64.

    Raises
    ------
    OptionError
        The file cannot be read, or the secret is shorter than 16 characters.
    """
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The secret cannot be read from {file} ({error}).") from error
    if len(text) < _LEAST:
        raise OptionError(
            f"The secret in {file} has {len(text)} characters; it needs {_LEAST} or more. "
            "`openssl rand -hex 32` makes one."
        )
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise OptionError(
            f"The secret in {file} begins with whsec_; what follows is not base64."
        ) from error
