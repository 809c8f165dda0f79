"""The results as a table: one row for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..inspection import Prediction
from .storage import Storage

_POINTS = pa.list_(pa.list_(pa.int32()))
_REGION = pa.struct(
    [
        ("box", pa.list_(pa.int32())),
        ("area", pa.int64()),
        ("score", pa.float64()),
        ("contour", _POINTS),
    ]
)
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("modified", pa.int64()),  # nanoseconds since 1970
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("score", pa.float64()),
        ("raw_score", pa.float64()),
        ("threshold", pa.float64()),
        ("verdict", pa.string()),  # good, anomalous; null with an error
        ("reason", pa.string()),
        ("boxes", _POINTS),
        ("regions", pa.list_(_REGION)),
        ("error", pa.string()),
        ("picture", pa.string()),  # its path in the output folder
        ("model", pa.string()),  # digest
    ]
)
Row = dict[str, Any]
State = tuple[int | None, int | None]  # bytes, time of change


def row_of(path: str, state: State, prediction: Prediction, model: str, picture: str | None) -> Row:
    """What is said of an image."""
    values = prediction.to_dict()
    height, width = prediction.image_size or (None, None)
    verdict = None
    if prediction.error is None:
        verdict = "anomalous" if prediction.is_anomalous else "good"
    kept = ("score", "raw_score", "threshold", "reason", "boxes", "regions", "error")
    return {
        **{name: values[name] for name in kept},
        "path": path,
        "bytes": state[0],
        "modified": state[1],
        "height": height,
        "width": width,
        "verdict": verdict,
        "picture": picture,
        "model": model,
    }


def read_rows(place: Storage) -> dict[str, Row]:
    """The rows of a file by path; none where there is no such file or it is damaged."""
    try:
        table = pq.read_table(place.path, filesystem=place.system, schema=SCHEMA)
    except (OSError, pa.ArrowException):
        return {}
    return {row["path"]: row for row in table.to_pylist()}


def write_rows(place: Storage, rows: Sequence[Row]) -> None:
    """Write a file of rows, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), sink)
    place.write(sink.getvalue())
