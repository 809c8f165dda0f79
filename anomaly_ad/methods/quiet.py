"""TensorFlow's start without its alarms: on a machine without a graphics card nothing is wrong."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# What its libraries print where there is no graphics card, and of their own start.
_ALARMS = re.compile(
    rb"absl::InitializeLog|[Cc]ould not find cuda|cuda_platform|cuInit|cudart|TF-TRT|TensorRT"
    rb"|oneDNN custom operations|cpu_feature_guard|AVX2|rebuild TensorFlow"
    rb"|Unable to register cu|computation_placer|cannot dlopen some GPU libraries"
    rb"|Skipping registering GPU devices"
)


@contextmanager
def without_alarms() -> Iterator[None]:
    """Hold back what is written to the file descriptor of stderr, and then leave out the alarms.

    They come from C++, past Python's stderr and its logging. All other lines are passed on.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (AttributeError, OSError, ValueError):  # there is none
        yield
        return
    try:
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
                held.seek(0)
                for line in held:
                    if not _ALARMS.search(line):
                        os.write(2, line)
    finally:
        os.close(kept)
