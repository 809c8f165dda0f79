"""Ask a running service about images, as a program beside the line would.

    anomaly-ad serve Models/model
    python examples/client.py Dataset/Washer/test/scratch/000.jpg

Needs nothing but Python. The token, if the service asks for one, is read from ANOMALY_AD_TOKEN.
"""

import argparse
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# The service stands beside the line: no proxy that the environment names is asked for it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_UNFIT = str.maketrans(dict.fromkeys('"\r\n', "_"))  # for a name in a header


def predict(address: str, files: list[Path], token: str | None = None) -> dict:
    """Upload images; the answer, or what the service says is wrong with the request.

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
    request = urllib.request.Request(f"{address}/predict", body)
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    for _ in range(10):
        try:
            with _opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return json.load(error)
            time.sleep(float(error.headers.get("Retry-After", 1)))
    return {"error": "The service is busy."}


def main() -> None:
    """Print a verdict per image; exit with status 1 if one is anomalous or could not be judged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    options = parser.parse_args()
    token = os.environ.get("ANOMALY_AD_TOKEN")
    try:
        answer = predict(options.address, options.images, token)
    except urllib.error.URLError as error:
        sys.exit(f"No service answers at {options.address}: {error.reason}")
    except (OSError, ValueError) as error:
        # A file that is not there, a connection that broke, an answer from something else.
        sys.exit(f"There is no answer: {error}")
    good = True
    # One image is answered by its verdict alone, several by a list.
    for found in answer.get("predictions", [answer]):
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
