"""A request that is not answered with a verdict: the status, and what to do."""

from __future__ import annotations

import json


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """Ends a request with an error.

    Parameters
    ----------
    status : int
        HTTP status: 4xx, 503, or 500 where the service failed.
    message : str
        What was expected, what was received, what to do. It goes to the client, so it holds no
        path of the server.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def body(self) -> bytes:
        """JSON, as every error of the service."""
        return json.dumps({"error": self.message}).encode()

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the status and to the body."""
        headers = {"content-type": "application/json", "content-length": str(len(self.body))}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if self.status == 503:
            # A queue of usual photographs is worked off within a second.
            headers["retry-after"] = "1"
        return headers
