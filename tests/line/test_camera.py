import threading

import cv2
import numpy as np
import pytest
from conftest import draw_part, run_command, write_image

from anomaly_ad import AD
from anomaly_ad.errors import ImageError, OptionError, PathError
from anomaly_ad.line import camera as module
from anomaly_ad.line.camera import Camera, watch_camera
from anomaly_ad.line.line import Settings


class Fake:
    """What OpenCV gives: BGR frames, as fast as they are asked for."""

    def __init__(self, frames, *, fails_after=None):
        self.frames = iter(frames)
        self.left = fails_after
        self.released = False

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        if self.left == 0:
            return False, None
        if self.left is not None:
            self.left -= 1
        frame = next(self.frames, None)
        return frame is not None, None if frame is None else frame[..., ::-1]

    def release(self):
        self.released = True


@pytest.fixture
def run(stored, output):
    def work(camera, *, stop=None, triggers=None, show=None, **more):
        watch_camera(
            stored,
            camera,
            Settings(output, **more),
            stop or threading.Event(),
            triggers=triggers,
            show=show,
        )

    return work


@pytest.fixture
def sequence(tmp_path):
    folder = tmp_path / "frames"
    for number in range(6):
        write_image(folder / f"part_{number:03d}.png", draw_part(number, defect=number % 2 == 1))
    return str(folder / "part_%03d.png")


def test_an_image_sequence_has_the_verdicts_of_predict(run, sequence, rows, trained, output):
    run(Camera(sequence))
    expected = AD(trained).predict([sequence % n for n in range(6)], save=False)
    assert [row["score"] for row in rows()] == pytest.approx([p.score for p in expected], abs=1e-6)
    assert [row["verdict"] for row in rows()] == ["good", "anomalous"] * 3
    for row in rows():
        assert cv2.imread(str(output / row["picture"])) is not None
        assert row["path"].endswith(".png") and row["digest"] and row["modified"]
    assert len({row["path"] for row in rows()}) == 6


def test_a_video_file(run, rows, tmp_path):
    video = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    if not writer.isOpened():
        pytest.skip("OpenCV writes no AVI here")
    for number in range(20):
        writer.write(draw_part(number)[..., ::-1])
    writer.release()
    run(Camera(str(video)))
    assert len(rows()) == 20


@pytest.mark.parametrize(
    ("every", "expected"), [({"every_frames": 3}, 4), ({"every_seconds": 0.1}, 4)]
)
def test_some_frames(run, rows, every, expected):
    frames = [draw_part(n) for n in range(10)]  # of 25 a second, where the source does not say
    run(Camera("part_%d.png", opened=lambda name: Fake(frames), **every))
    assert len(rows()) == expected


def test_the_newest_frame_is_taken(run, rows):
    stop, seen = threading.Event(), []

    def endless():
        number = 0
        while True:
            number += 1
            yield np.full((64, 64, 3), number % 250, np.uint8)

    def show(frame, decision):
        seen.append(frame.number)
        threading.Event().wait(0.05)
        if len(seen) == 10:
            stop.set()

    camera = Camera("0", opened=lambda name: Fake(endless()))
    run(camera, stop=stop, show=show, pictures="none")
    assert len(rows()) == 10
    assert seen == sorted(seen) and seen[-1] > 20  # most were passed over


def test_what_was_dropped_is_told(stored, output, rows):
    stop, states = threading.Event(), []
    frames = [draw_part(1)] * 2000

    def show(frame, decision):
        threading.Event().wait(0.02)

    def state(state):
        states.append(state)
        if state.dropped:
            stop.set()

    camera = Camera("0", opened=lambda name: Fake(frames * 100))
    watch_camera(stored, camera, Settings(output, show=state, pictures="none"), stop, show=show)
    assert states[-1].dropped > 0 and "frames dropped" in str(states[-1])


def test_a_camera_that_fails_is_opened_again(run, rows, monkeypatch):
    monkeypatch.setattr(module, "_SOONEST", 0.02)
    stop, made = threading.Event(), []

    def opened(name):
        if len(made) == 1:
            made.append(None)

            class Absent(Fake):
                def isOpened(self):  # noqa: N802
                    return False

            return Absent([])
        made.append(Fake([draw_part(n) for n in range(50)], fails_after=3))
        return made[-1]

    def show(frame, decision):
        if frame.number > 5:
            stop.set()

    run(Camera("rtsp://camera/1", opened=opened), stop=stop, show=show)
    assert len(made) >= 3 and made[0].released


def test_a_line_on_stdin_asks_for_a_verdict_and_names_it(run, rows):
    frames = [draw_part(n) for n in range(5)]
    names = iter(["part 17\n", "\n", "../etc/passwd\n"])
    run(Camera("part_%d.png", trigger="stdin", opened=lambda name: Fake(frames)), triggers=names)
    assert len(rows()) == 3
    first, second, third = [row["path"] for row in rows()]
    assert first.endswith("-part_17.png") and second.endswith("-0000002.png")
    assert third.endswith("etc_passwd.png") and ".." not in third


def test_a_part_that_comes_and_lies_still_is_inspected_once(run, rows):
    empty = np.full((64, 64, 3), 40, np.uint8)
    part, other = draw_part(1), np.roll(draw_part(2), 8, axis=1)
    moving = [np.roll(part, shift, axis=1) for shift in (40, 30, 20, 10)]
    frames = [empty] * 3 + moving + [part] * 5 + [np.roll(part, 10, axis=1)] + [other] * 4
    run(Camera("part_%d.png", trigger="change", opened=lambda name: Fake(frames)))
    assert len(rows()) == 3  # the empty table, the part, the other part


def test_verdicts_of_pairs_have_their_names(trained, tmp_path):
    ad = AD(trained)
    camera = ((f"part_{n}", draw_part(n)) for n in range(3))
    found = list(ad.stream(camera, tmp_path / "out"))
    assert [p.path for p in found] == ["part_0", "part_1", "part_2"]
    assert (tmp_path / "out" / "part_2.png").exists()
    one = ad.predict(("v1.2", draw_part(0)), tmp_path / "one")
    assert one.path == "v1.2" and (tmp_path / "one" / "v1.2.png").exists()
    assert [p.path for p in ad.stream(iter([draw_part(0)]))] == [None]


@pytest.mark.parametrize("name", ["", "../a", "/a", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(trained, tmp_path, name):
    with pytest.raises(OptionError, match="The name of an image is a relative path"):
        list(AD(trained).stream(iter([(name, draw_part(0))]), tmp_path / "out"))


def test_a_list_with_one_name_twice_is_refused(trained, tmp_path):
    with pytest.raises(OptionError, match=r"Two images of the list have the name 'a\.png'"):
        AD(trained).predict([("a", draw_part(0)), ("a", draw_part(1))], tmp_path)


def test_bad_sources_and_options(tmp_path, trained):
    with pytest.raises(PathError, match="there is no such video"):
        Camera("nothing.mp4").open()
    with pytest.raises(PathError, match=r"rtsp://user@host/x cannot be opened"):
        Camera("rtsp://user:secret@host/x", opened=lambda name: cv2.VideoCapture()).open()
    with pytest.raises(OptionError, match="A trigger is one of none, stdin, change"):
        Camera("0", trigger="bell")
    with pytest.raises(OptionError, match="every is a number of frames"):
        Camera("0", every_frames=0)
    _, words = run_command("camera", trained, "0", "--every", "soon", code=2)
    assert "A time is a number and s, m or h" in words


def test_the_command(sequence, trained, tmp_path):
    out, _ = run_command(
        *("camera", trained, sequence, "--every", "2", "--output", tmp_path / "out", "--json")
    )
    lines = out.splitlines()
    assert len(lines) == 3 and all('"is_anomalous": false' in line for line in lines)


def test_a_driver_that_raises_is_like_a_camera_that_fails(run, rows, monkeypatch):
    monkeypatch.setattr(module, "_SOONEST", 0.02)
    stop, made = threading.Event(), []

    class Raising(Fake):
        def read(self):
            if self.left == 0:
                raise cv2.error("a driver's fault")
            return super().read()

    def opened(name):
        made.append(None)
        if len(made) == 2:
            raise RuntimeError("busy")
        return Raising([draw_part(n) for n in range(50)], fails_after=2)

    def show(frame, decision):
        if frame.number > 3:
            stop.set()

    run(Camera("0", opened=opened), stop=stop, show=show)
    assert len(made) >= 3


def test_a_file_that_cannot_be_decoded_is_an_error(run):
    class Raising(Fake):
        def read(self):
            raise cv2.error("broken")

    with pytest.raises(ImageError, match=r"cannot be read: .*broken"):
        run(Camera("part_%d.png", opened=lambda name: Raising([])))


def test_frames_of_16_bits_are_not_wrapped(run, rows):
    frames = [np.full((64, 64, 3), 40_000, np.uint16)]
    run(Camera("part_%d.png", opened=lambda name: Fake(frames)))
    assert rows()[0]["verdict"] == "error" and "uint16" in rows()[0]["answer"]["error"]


def test_which_sources_are_live():
    assert Camera("0").is_live and Camera("rtsp://camera/1").is_live
    assert not Camera("file:///line.mp4").is_live and not Camera("line.mp4").is_live
    assert Camera("/dev/null").is_live  # a device, such as /dev/video0
    with pytest.raises(OptionError, match="every and trigger"):
        Camera("0", trigger="stdin", every_frames=2)
