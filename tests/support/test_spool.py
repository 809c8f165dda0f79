import os
import tempfile
import threading

import numpy as np
import pytest

from anomaly_ad.errors import OutputError
from anomaly_ad.support.spool import Spool


def test_items_come_back_in_any_order_and_from_any_thread():
    items = np.random.default_rng(0).random((30, 3, 5)).astype(np.float32)
    with Spool(30, (3, 5), np.float32) as kept:
        for n in np.random.default_rng(1).permutation(30):
            kept[n] = items[n]
        assert len(kept) == 30
        order = np.array([7, 7, 0, 29])
        np.testing.assert_array_equal(kept[order], items[order])
        wrong = []

        def read():
            for _ in range(50):
                if not (kept[np.arange(30)] == items).all():
                    wrong.append(1)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
    with pytest.raises(ValueError, match="closed file"):
        kept[np.arange(1)]


@pytest.mark.skipif(os.name == "nt", reason="Windows shows the file while it is open")
def test_nothing_of_it_is_seen_so_nothing_is_left_by_a_kill(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool(4, (3,), np.uint8) as kept:
        kept[0] = np.ones(3, np.uint8)
        assert not list(tmp_path.iterdir())


def test_an_item_of_another_shape():
    with Spool(2, (3,), np.uint8) as kept, pytest.raises(ValueError, match=r"shape \(3,\)"):
        kept[0] = np.zeros(4, np.uint8)


def test_more_than_the_disk_holds(monkeypatch):
    with pytest.raises(OutputError, match="TMPDIR at a larger disk"):
        Spool(10**12, (1000,), np.uint8)


def test_a_disk_that_becomes_full(monkeypatch):
    with Spool(2, (3,), np.uint8) as kept:

        class Full:
            def seek(self, _):
                raise OSError(28, "No space left on device")

            def close(self):
                pass

        monkeypatch.setattr(kept, "_file", Full())
        with pytest.raises(OutputError, match=r"No space left.*TMPDIR"):
            kept[0] = np.zeros(3, np.uint8)
