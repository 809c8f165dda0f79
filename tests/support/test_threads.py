import threading
import time

import pytest

from anomaly_ad.support.threads import ordered_map


def test_results_come_in_the_order_of_the_items():
    def slow_if_even(n):
        time.sleep(0.01 if n % 2 == 0 else 0)
        return n * n

    assert list(ordered_map(slow_if_even, range(30), workers=4)) == [n * n for n in range(30)]


def test_few_items_are_drawn_ahead_of_the_taker():
    drawn = []
    results = ordered_map(lambda n: n, (drawn.append(n) or n for n in range(1000)), workers=2)
    next(results)
    assert len(drawn) <= 5
    results.close()


def test_an_error_appears_at_its_place_and_ends_the_threads():
    def fail_at_three(n):
        if n == 3:
            raise KeyError(n)
        return n

    results = ordered_map(fail_at_three, range(100), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("anomaly_ad")]
