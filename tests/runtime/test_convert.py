import multiprocessing

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="converting needs the extra 'train'")

import keras

from anomaly_ad.errors import ParityError
from anomaly_ad.runtime.convert import prove_parity, to_openvino
from anomaly_ad.runtime.engine import Engine


def graph(factor):
    images = keras.Input((8, 8, 1), dtype="uint8", name="images")
    anomaly_map = keras.ops.cast(images, "float32")[..., 0] * factor
    score = keras.ops.max(anomaly_map, axis=(1, 2))
    return keras.Model(images, {"anomaly_map": anomaly_map, "score": score})


def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


def test_converting_starts_no_process_that_reports(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing, "Process", refuse)
    from openvino.tools.ovc import convert_impl

    before = convert_impl.tm
    monkeypatch.setattr(before, "Telemetry", refuse)
    model = to_openvino(graph(2.0))
    assert convert_impl.tm is before
    assert Engine(model).run(images())["score"].tolist() == (2.0 * images().max((1, 2, 3))).tolist()


def test_parity_is_proven_and_its_lack_is_refused():
    engine = Engine(to_openvino(graph(2.0)))
    assert max(prove_parity(graph(2.0), engine, images()).deviation.values()) < 1e-6
    with pytest.raises(ParityError, match=r"deviates .* Nothing was saved"):
        prove_parity(graph(2.001), engine, images())
