"""Ask a running service about photographs: post files, read verdicts.

    anomaly-ad serve Models/model
    python examples/fastapi_client.py Dataset/Washer/test/scratch/000.jpg

Needs urllib3 (python -m pip install urllib3). `client.py` is one without dependencies, for machines
where every odd answer must be told from a verdict.
"""

import os
import sys
from pathlib import Path

import urllib3

ADDRESS = os.environ.get("ANOMALY_AD_ADDRESS", "http://127.0.0.1:8000")
# A full queue (503) says in Retry-After when to come again, and urllib3 waits that long.
RETRY = urllib3.Retry(total=5, status_forcelist=[503], allowed_methods=["POST"], backoff_factor=0.5)


def inspect(file: Path) -> dict:
    """Upload one photograph; its verdict, or what is wrong with it under "error"."""
    headers = {}
    if token := os.environ.get("ANOMALY_AD_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    answer = urllib3.request(
        "POST",
        f"{ADDRESS}/predict",
        fields={"image": (file.name, file.read_bytes())},
        headers=headers,
        retries=RETRY,
        timeout=60,
    )
    return answer.json()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        found = inspect(Path(name))
        if "error" in found:
            print(f"ERROR      {name}: {found['error']}")
        else:
            word = "ANOMALOUS" if found["is_anomalous"] else "good"
            print(f"{word:9}  {found['score']:.3f}  {name}  {found['boxes']}")
