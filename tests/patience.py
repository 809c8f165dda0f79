"""Waiting for what happens in threads."""

import time

SECONDS = 60


def until(condition, seconds=SECONDS):
    """Wait until a condition holds; give its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.02)
    return value
