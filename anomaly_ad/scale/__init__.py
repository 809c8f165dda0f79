"""Inspecting more images than a folder of records should hold: into Parquet, by any engine.

The images are divided into shards by a hash of their paths, and each shard is one file of results.
So a shard that is done twice replaces itself, and a further call knows what is done already.
"""

from importlib.util import find_spec

from ..errors import missing_extra

if find_spec("pyarrow") is None:
    raise missing_extra("predict_dataset", "ray", "pyarrow")

from .dataset import DatasetRun, predict_dataset

__all__ = ["DatasetRun", "predict_dataset"]
