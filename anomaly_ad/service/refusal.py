"""A request that is not answered with a verdict: the status, and what to do."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """Ends a request with an error.

    Parameters
    ----------
    status : int
        HTTP status, 4xx or 503.
    message : str
        What was expected, what was received, what to do. It goes to the client, so it holds no
        path of the server.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the status."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        # A queue of usual photographs is worked off within a second.
        return {"retry-after": "1"} if self.status == 503 else {}
