from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino as ov
import openvino.opset13 as op
import pytest

from anomaly_ad.errors import ModelError, OptionError
from anomaly_ad.runtime.engine import Engine


@pytest.fixture(scope="module")
def engine():
    return toy()


def toy():
    """Outputs the image as "anomaly_map" and its maximum as "score"."""
    images = op.parameter([-1, 8, 8, 1], np.uint8, name="images")
    images.output(0).set_names({"images"})
    values = op.convert(images, "f32")
    anomaly_map = op.squeeze(values, op.constant([3]))
    score = op.reduce_max(anomaly_map, op.constant([1, 2]))
    anomaly_map.output(0).set_names({"anomaly_map"})
    score.output(0).set_names({"score"})
    return Engine(ov.Model([anomaly_map, score], [images], "toy"))


def image(n):
    return np.full((8, 8, 1), n, np.uint8)


def test_a_batch(engine):
    out = engine.run(np.stack([image(3), image(200)]))
    assert out["score"].tolist() == [3, 200] and out["anomaly_map"].shape == (2, 8, 8)
    again = engine.run(image(9)[None])
    assert out["score"].tolist() == [3, 200] and again["score"].tolist() == [9]


def test_only_what_is_wanted_is_copied_and_what_there_is_not_is_left_out(engine):
    assert set(engine.run(image(3)[None], ("score", "reconstruction"))) == {"score"}
    assert engine.run(image(3)[None], ()) == {}
    ((_, outputs),) = engine.stream([(0, image(3)[None])], ("score",))
    assert set(outputs) == {"score"}


def test_many_images_at_once(engine):
    out = engine.run_all(np.stack([image(n) for n in range(11)]))
    assert out["score"].tolist() == list(range(11)) and out["anomaly_map"].shape == (11, 8, 8)


def test_threads_beside_each_other_get_their_own_results(engine):
    engine.run_concurrently(image(0)[None])  # compiles
    with ThreadPoolExecutor(6) as threads:
        found = threads.map(
            lambda n: engine.run_concurrently(image(n % 256)[None], ("score",)), range(400)
        )
        assert [outputs["score"].item() for outputs in found] == [n % 256 for n in range(400)]
    with pytest.raises(RuntimeError):
        engine.run_concurrently(np.zeros((1, 3, 3, 1), np.uint8))
    assert engine.run_concurrently(image(5)[None])["score"] == [5]  # and no request is lost


@pytest.mark.parametrize("call", ["run", "stream"])
def test_one_engine_in_any_thread(call):
    """Also while it compiles: results of one thread never are another's."""
    engine = toy()

    def score(n):
        if call == "run":
            return engine.run(image(n % 256)[None], ("score",))["score"].item()
        ((_, outputs),) = engine.stream([(None, image(n % 256)[None])], ("score",))
        return outputs["score"].item()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(score, range(400))) == [n % 256 for n in range(400)]


def test_a_request_is_not_lost_where_a_call_fails(engine):
    for _ in range(3):
        with pytest.raises(RuntimeError):
            engine.run(np.zeros((1, 3, 3, 1), np.uint8))
    assert engine.run(image(5)[None])["score"] == [5]


def test_what_a_model_takes_and_gives(engine):
    assert engine.view_shape == (8, 8, 1)
    assert sorted(engine.output_names) == ["anomaly_map", "score"]


def test_a_model_that_takes_no_batch_of_images():
    vector = op.parameter([-1, 8], np.uint8, name="images")
    with pytest.raises(ModelError, match="not a batch of images"):
        _ = Engine(ov.Model([vector], [vector], "toy")).view_shape


def test_a_stream_keeps_the_order_and_the_gaps(engine):
    items = [(n, None if n % 7 == 3 else image(n)[None]) for n in range(200)]
    results = list(engine.stream(items))
    assert [item for item, _ in results] == list(range(200))
    for n, outputs in results:
        if n % 7 == 3:
            assert outputs is None
        else:
            assert outputs["score"].tolist() == [n] and (outputs["anomaly_map"] == n).all()


def test_a_stream_draws_few_images_ahead(engine):
    drawn = []
    results = engine.stream((drawn.append(n) or n, image(0)[None]) for n in range(1000))
    next(results)
    assert len(drawn) < 100
    results.close()


def test_an_error_of_the_items_reaches_the_taker(engine):
    def items():
        yield 0, image(0)[None]
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(engine.stream(items()))


def test_what_cannot_be_compiled(tmp_path):
    (tmp_path / "a.xml").write_text("<net")
    with pytest.raises(ModelError, match="cannot read"):
        Engine(tmp_path / "a.xml")
    with pytest.raises(OptionError, match="f32, bf16, f16"):
        Engine(tmp_path / "a.xml", "int4")
