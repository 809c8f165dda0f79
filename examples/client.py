"""Ask a running service about images, as a program next to the line would.

    anomaly-ad serve Models/model
    python examples/client.py Dataset/Washer/test/scratch/000.jpg

Needs nothing but Python. The token, if the service asks for one, is read from ANOMALY_AD_TOKEN.
"""

import argparse
import http.client
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

_LONGEST_WAIT = 60.0  # seconds
_UNFIT = str.maketrans(dict.fromkeys('"\r\n', "_"))  # for a name in a header


class _Straight(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: the token is for this service."""

    def redirect_request(self, *_: object) -> None:
        return None


# The service stands next to the line: no proxy that the environment names is asked for it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Straight)


def predict(address: str, files: list[Path], token: str | None = None) -> list[dict]:
    """Upload images; what is said of each, or of the request if something is wrong with it.

    Where its queue is full the service says when to come again, and that is done.
    """
    boundary = secrets.token_hex(16)
    body = b""
    for file in files:
        name = file.name.translate(_UNFIT)
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"'
            "\r\n\r\n"
        ).encode()
        body += file.read_bytes() + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    request = urllib.request.Request(f"{address.rstrip('/')}/predict", body)
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    for _ in range(10):
        try:
            with _opener.open(request, timeout=60) as answer:
                return _findings(answer, len(files))
        except urllib.error.HTTPError as error:
            if error.code not in (408, 503):  # the queue is full, or the upload took too long
                return _findings(error, 0)  # no verdict with such a status
            time.sleep(_seconds(error.headers.get("Retry-After")))
    return [{"error": "The service is busy."}]


def _findings(answer: IO[bytes], images: int) -> list[dict]:
    """What the service says of so many images, or of the request if it was refused."""
    try:
        said = json.load(answer)
        if "error" in said:
            return [{"error": said["error"]}]
        # One image is answered by its verdict alone, several by a list.
        findings = said["predictions"] if images > 1 else [said]
        told = [
            isinstance(one, dict) and ("error" in one or _is_verdict(**one)) for one in findings
        ]
        if all(told) and len(told) == images:
            return findings
    except (ValueError, TypeError, LookupError, RecursionError):
        pass  # no JSON, or of another form
    raise ValueError("this is not an inspection service")


def _is_verdict(is_anomalous: object, score: object, name: object, **_: object) -> bool:
    return (
        isinstance(is_anomalous, bool)
        and isinstance(score, float | int)
        and 0 <= score <= 1
        and isinstance(name, str)
    )


def _seconds(retry_after: str | None) -> float:
    """Seconds to wait; this service says a number, others may say a date."""
    number = retry_after and retry_after.isascii() and retry_after.isdigit()
    return min(float(retry_after), _LONGEST_WAIT) if number else 1.0


def main() -> None:
    """Print a verdict per image; exit with status 1 if one is anomalous or was not inspected."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    token = os.environ.get("ANOMALY_AD_TOKEN")
    try:
        findings = predict(options.address, options.images, token)
    except urllib.error.URLError as error:
        sys.exit(f"No service answers at {options.address}: {error.reason}")
    except (OSError, ValueError, http.client.HTTPException) as error:
        # A file that is not there, a connection that broke, an answer from something else.
        sys.exit(f"There is no answer: {error or type(error).__name__}")
    sys.stdout.reconfigure(errors="backslashreplace")  # names may hold anything
    good = True
    for found in findings:
        if "error" in found:
            print(f"ERROR      {found['error']}")
            good = False
        else:
            word = "ANOMALOUS" if found["is_anomalous"] else "good"
            print(f"{word:9}  {found['score']:.3f}  {found['name']}")
            good = good and not found["is_anomalous"]
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
