"""What is inspected: drawn lazily, with the verdict before the next; and names of pictures."""

import itertools
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np
import pytest
from conftest import draw_part, write_image, write_parts

from anomaly_ad import AD
from anomaly_ad.errors import ImageError, OptionError, PathError
from anomaly_ad.images.sources import find_sources, relative_names


@pytest.fixture
def ad(trained):
    return AD(trained)


class Camera:
    """Yields frames without end and knows how many were drawn."""

    def __init__(self, *frames):
        self.drawn = 0
        self._frames = itertools.cycle(frames or [draw_part(seed) for seed in range(3)])

    def __iter__(self):
        for frame in self._frames:
            self.drawn += 1
            yield frame


def test_a_stream_draws_an_image_when_its_verdict_is_asked_for(ad):
    camera = Camera(draw_part(0), draw_part(1, defect=True))
    stream = ad.stream(camera)
    assert camera.drawn == 0
    for count, prediction in enumerate(itertools.islice(stream, 6), 1):
        assert camera.drawn == count  # the next one is not waited for
        assert prediction.is_anomalous == (count % 2 == 0)
    stream.close()
    assert camera.drawn == 6


def test_predict_draws_a_generator_as_it_goes(ad, monkeypatch):
    """Frames of a generator are not all in memory at a time."""
    alive = 0
    most = 0

    class Frame(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def frames():
        nonlocal alive, most
        for seed in range(60):
            alive += 1
            most = max(most, alive)
            yield draw_part(seed).view(Frame)

    predictions = ad.predict(frames(), save=False)
    assert len(predictions) == 60 and most < 40
    expected = ad.predict([draw_part(seed) for seed in range(60)], save=False)
    assert [p.raw_score for p in predictions] == [p.raw_score for p in expected]


def test_paths_from_a_generator_with_pictures_and_a_record(ad, tmp_path, monkeypatch):
    folder = write_parts(tmp_path / "in", 4)
    monkeypatch.chdir(tmp_path)
    for given in (
        (tmp_path / "in").glob("*.png"),
        (p.relative_to(tmp_path) for p in folder.iterdir()),
    ):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        predictions = list(ad.stream(given, out))
        assert len(predictions) == 4
        assert sorted(path.name for path in (out / "in").iterdir()) == [
            f"00{n}.png" for n in range(4)
        ]
        again = ad.predict(folder.glob("*.png"), out, resume=True)
        assert sorted(p.raw_score for p in again) == sorted(p.raw_score for p in predictions)
        assert len((out / "predictions.jsonl").read_text().splitlines()) == 4
    monkeypatch.chdir("/")
    ad.predict(iter(sorted(folder.iterdir())[:1]), tmp_path / "far")
    assert len(list((tmp_path / "far").rglob("000.png"))) == 1


def test_what_is_drawn_is_checked_item_by_item(ad, tmp_path):
    file = write_image(tmp_path / "in" / "a.png", draw_part(0))
    inside = write_image(tmp_path / "out" / "b.png", draw_part(0))
    before = inside.read_bytes()
    stream = ad.stream(iter([file, inside]), tmp_path / "out")
    assert next(stream).error is None
    with pytest.raises(OptionError, match=r"b\.png lies in the output folder"):
        next(stream)
    assert inside.read_bytes() == before
    for items, error, message in (
        ([file, 7], OptionError, "pairs .name, image.. Received: 7"),
        ([file, ""], OptionError, "this one is empty"),
        ([draw_part(0) / 255.0], ImageError, "Convert it with"),
    ):
        stream = ad.stream(iter(items))
        if error is ImageError:
            assert message in next(stream).error  # one frame of many
            continue
        next(stream)
        with pytest.raises(error, match=message):
            next(stream)
    with pytest.raises(OptionError, match="resume knows images by their paths"):
        list(ad.stream(iter([draw_part(0)]), tmp_path / "other", resume=True))


def test_an_interrupted_camera_leaves_its_lines(ad, tmp_path):
    stream = ad.stream(Camera(), tmp_path)
    assert [next(stream).error for _ in range(5)] == [None] * 5
    stream.close()
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 5
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("path", ["", "  "[:0]])
def test_an_empty_path_is_an_error(ad, tmp_path, monkeypatch, path):
    monkeypatch.chdir(write_parts(tmp_path, 2))
    for call in (
        lambda: ad.predict(path),
        lambda: ad.predict([path]),
        lambda: list(ad.stream(path)),
        lambda: ad.predict("000.png", path),
        lambda: AD("padim", save_path=path),
        lambda: AD("padim").load_data(path),
        lambda: AD(path),
    ):
        with pytest.raises(OptionError, match="empty"):
            call()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000.png", "001.png"]


def test_nothing_in_a_generator(ad, capsys):
    assert ad.predict(iter([]), save=False) == []
    assert "Inspected 0 images" in capsys.readouterr().out
    assert list(ad.stream(iter([]))) == []
    with pytest.raises(PathError):
        find_sources("missing")


@pytest.mark.parametrize(
    ("kind", "paths", "names"),
    [
        (PurePosixPath, ["/a/b/1.png", "/a/c/1.png"], ["b/1.png", "c/1.png"]),
        (PurePosixPath, ["/a/b/1.png"], ["1.png"]),
        (PurePosixPath, ["/1.png", "/a/1.png"], ["1.png", "a/1.png"]),
        (PureWindowsPath, ["C:/a/1.png", "C:/b/1.png"], ["a/1.png", "b/1.png"]),
        (PureWindowsPath, ["C:/a/1.png", "D:/a/1.png"], ["C/a/1.png", "D/a/1.png"]),
        (PureWindowsPath, ["c:/a/1.png", "C:/a/2.png"], ["1.png", "2.png"]),
        (
            PureWindowsPath,
            ["//server/share/1.png", "C:/1.png"],
            ["SERVER_SHARE/1.png", "C/1.png"],
        ),
    ],
)
def test_pictures_keep_what_tells_paths_apart(kind, paths, names):
    assert [name.as_posix() for name in relative_names([kind(path) for path in paths])] == names
