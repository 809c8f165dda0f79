"""What the service costs on top of the inspection itself, and what it stands.

    python benchmarks/serve.py $ANOMALY_AD_DATA/bottle
    python benchmarks/serve.py $ANOMALY_AD_DATA/bottle --only throughput start

Trains padim on the folder's images (or takes `--model DIR`), starts `anomaly-ad serve` on 127.0.0.1
and prints:

throughput  8 clients on connections kept alive, in a process of their own, that post the test
            images as JPEGs of 512 pixels; compared with AD.stream of the same images, in turn
soak        10,000 such requests (--requests): errors, and the growth of the server's memory from a
            tenth of them to the end
hostile     2,000 requests (--hostile) that no client should send, with good ones next to them
start       a new process from its start to its first verdict, against one that only imports
            fastapi, uvicorn, openvino and compiles the model
stop        SIGTERM while 8 clients post: a request that was sent and got no answer is a failure
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2

from anomaly_ad import AD
from anomaly_ad.images import find_images, read_image
from anomaly_ad.inspection.output import write_picture

CLIENTS = 8
ROUNDS = 5
SIDE = 512  # pixels

BARE = """
import sys, fastapi, uvicorn, openvino
settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
openvino.Core().compile_model(sys.argv[1], "CPU", settings)
"""


# ------------------------------------------------------------------------------- clients


def form(data: bytes, field: str = "image") -> tuple[bytes, bytes]:
    """(content type, body) of a multipart form with one file."""
    head = f'--XX\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n\r\n'
    return b"multipart/form-data; boundary=XX", head.encode() + data + b"\r\n--XX--\r\n"


def post(kind: bytes, body: bytes, path: bytes = b"/predict", extra: bytes = b"") -> bytes:
    """The bytes of a POST."""
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        path,
        kind,
        len(body),
        extra,
        body,
    )


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_answer(connection: socket.socket) -> tuple[int, bytes, bool]:
    """(status, body, whether the connection stays); status 0: it was closed without an answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return 0, data, False
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    sizes = [line for line in lines if line.startswith(b"content-length:")]
    missing = int(sizes[0].split(b":")[1]) - len(body) if sizes else 0
    while missing > 0:
        chunk = connection.recv(missing)
        if not chunk:
            return 0, body, False
        body += chunk
        missing -= len(chunk)
    return int(head.split(b" ", 2)[1]), body, b"connection: close" not in lines


def clients(port: int, requests: list[bytes], count: int, pipe: Any) -> None:
    """Process of the load generator: send `count` requests; send back statuses and seconds."""
    statuses: Counter[int] = Counter()
    left = iter(range(count))
    lock = threading.Lock()

    def one() -> None:
        connection = connect(port)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            connection.sendall(requests[number % len(requests)])
            status, _, stays = read_answer(connection)
            with lock:
                statuses[status] += 1
            if not stays:
                connection = connect(port)

    start = time.perf_counter()
    together(one)
    pipe.send((statuses, time.perf_counter() - start))


def together(one: Callable[[], None]) -> None:
    threads = [threading.Thread(target=one) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_process(function: Callable[..., None], *arguments: Any) -> tuple[Any, Any]:
    """Start a process; (the process, what it sends back comes out of this)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=function, args=(*arguments, theirs))
    process.start()
    return process, ours


def load(port: int, requests: list[bytes], count: int) -> tuple[Counter[int], float]:
    process, pipe = in_process(clients, port, requests, count)
    found = pipe.recv()
    process.join()
    return found


# -------------------------------------------------------------------------------- server


@contextlib.contextmanager
def server(model: Path, *options: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "anomaly_ad", "serve", f"model={model}", "--port", "0"]
    process = subprocess.Popen(
        [*command, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process, int(process.stdout.readline().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait(timeout=60)


def memory(process: subprocess.Popen[str]) -> float:
    """Resident MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no VmRSS")


# ---------------------------------------------------------------------------------- bars


def throughput(model: Path, files: list[Path], options: argparse.Namespace) -> None:
    ad = AD(model)
    many = files * (400 // len(files) + 1)
    requests = [post(*form(file.read_bytes())) for file in files]
    ratios, ours, theirs = [], [], []
    with server(model) as (_, port):
        load(port, requests, 100)
        sum(1 for _ in ad.stream(files))
        for _ in range(ROUNDS):
            start = time.perf_counter()
            count = sum(1 for _ in ad.stream(many))
            theirs.append(count / (time.perf_counter() - start))
            statuses, seconds = load(port, requests, len(many))
            assert set(statuses) == {200}, statuses
            ours.append(len(many) / seconds)
            ratios.append(ours[-1] / theirs[-1])
    print(
        f"throughput  {statistics.median(ours):.0f} requests/s against "
        f"{statistics.median(theirs):.0f} images/s   ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})   (at least 0.7)"
    )


def soak(model: Path, files: list[Path], options: argparse.Namespace) -> None:
    requests = [post(*form(file.read_bytes())) for file in files]
    with server(model) as (process, port):
        statuses, _ = load(port, requests, options.requests // 10)
        before = memory(process)
        more, _ = load(port, requests, options.requests - options.requests // 10)
        after = memory(process)
    statuses += more
    growth = 100 * (after / before - 1)
    print(
        f"soak        {statuses.total()} requests: {dict(statuses)}; memory {before:.0f} to "
        f"{after:.0f} MB   {growth:+.1f} %   (no error; below 5 %)"
    )


def start(model: Path, files: list[Path], options: argparse.Namespace) -> None:
    xml = next(model.glob("*.xml"))
    request = post(*form(files[0].read_bytes()))
    ratios, ours = [], []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        with server(model) as (_, port):
            connection = connect(port)
            connection.sendall(request)
            assert read_answer(connection)[0] == 200
            ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", BARE, str(xml)], check=True)
        ratios.append(ours[-1] / (time.perf_counter() - begun))
    print(
        f"start       {statistics.median(ours):.2f} s to the first verdict   "
        f"ratio {statistics.median(ratios):.2f}   (at most 2)"
    )


def until_stopped(port: int, requests: list[bytes], pipe: Any) -> None:
    """Post until the server goes; send back how many were answered and which were lost."""
    found: Counter[str] = Counter()
    lock = threading.Lock()

    def one() -> None:
        while True:
            try:
                connection = connect(port)
            except OSError:
                return  # it takes no more
            stays, number = True, 0
            while stays:
                try:
                    connection.sendall(requests[number % len(requests)])
                    status, _, stays = read_answer(connection)
                except OSError as error:
                    status, stays = 0, False
                    what = f"lost: {type(error).__name__}"
                else:
                    what = f"{status}" if status else "lost: closed"
                if number == 0 and status == 0:
                    what = "refused"  # taken by the system's queue, never by the server
                with lock:
                    found[what] += 1
                number += 1

    together(one)
    pipe.send(found)


def stop(model: Path, files: list[Path], options: argparse.Namespace) -> None:
    requests = [post(*form(file.read_bytes())) for file in files]
    found: Counter[str] = Counter()
    seconds = []
    for _ in range(ROUNDS):
        with server(model) as (process, port):
            clients_process, pipe = in_process(until_stopped, port, requests)
            time.sleep(3)
            process.send_signal(signal.SIGTERM)
            begun = time.perf_counter()
            process.wait(timeout=60)
            seconds.append(time.perf_counter() - begun)
            found[f"exit status {process.returncode}"] += 1
            found += pipe.recv()
            clients_process.join()
    print(
        f"stop        {dict(found)} in {ROUNDS} rounds, ended after {max(seconds):.1f} s at most"
        "   (nothing lost)"
    )


# ------------------------------------------------------------------------------- hostile


def png_bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def hostile_kinds(jpeg: bytes, dice: random.Random) -> dict[str, Callable[[], bytes]]:
    """What is sent, by name; made again each time."""

    def named(name: object) -> bytes:
        return post(b"application/json", json.dumps({"data": {"image": name}}).encode())

    def mutated() -> bytes:
        data = bytearray(jpeg)
        for _ in range(20):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return post(*form(bytes(data[: dice.randrange(len(data))])))

    paths = (
        *("../../../etc/passwd", "/etc/passwd", "a/../../etc/passwd", "..\\..\\etc", "\0", "."),
        *("%2e%2e/%2e%2e/etc/passwd", "link", "pipe", "folder", "x" * 5000, "\ud800", ""),
    )
    json_bodies = (
        *(b"{", b"[]", b"null", b'{"data": []}', b'{"data": {"image": 7}}', b"\xff\xfe"),
        *(b"[" * 60_000, b"1" * 60_000, b'{"data": {"image": {"image": 1}}}', b"NaN"),
    )
    jpeg_type, jpeg_body = form(jpeg)
    return {
        "no image": lambda: post(*form(dice.randbytes(dice.randrange(2000)))),
        "truncated": lambda: post(*form(jpeg[: dice.randrange(len(jpeg))])),
        "mutated": mutated,
        "bomb": lambda: post(*form(png_bomb(dice.choice([9_000, 30_000, 2**31 - 1])))),
        "fill bytes": lambda: post(*form(b"\xff\xd8" + b"\xff" * 1_000_000)),
        "json": lambda: post(b"application/json", dice.choice(json_bodies)),
        "path": lambda: named(dice.choice(paths)),
        "wrong field": lambda: post(*form(jpeg, "file")),
        "damaged form": lambda: post(jpeg_type, dice.randbytes(3000)),
        "cut form": lambda: post(jpeg_type, jpeg_body[: dice.randrange(len(jpeg_body))]),
        "no boundary": lambda: post(b"multipart/form-data", jpeg_body),
        "many parts": lambda: post(jpeg_type, b"--XX\r\n\r\n\r\n" * 20_000),
        "wrong type": lambda: post(b"image/jpeg", jpeg),
        "thresh": lambda: post(
            jpeg_type, jpeg_body, b"/predict?thresh=" + dice.choice([b"nan", b"2", b"x"])
        ),
        "model": lambda: post(jpeg_type, jpeg_body, b"/predict?model=../" + b"m" * 300),
        "huge header": lambda: post(
            jpeg_type, jpeg_body, extra=b"x-a: " + b"a" * 200_000 + b"\r\n"
        ),
        "many headers": lambda: post(jpeg_type, jpeg_body, extra=b"x-a: a\r\n" * 20_000),
        "huge length": lambda: (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\n"
            b"content-length: 99999999999999999\r\n\r\n" % jpeg_type
        ),
        "two lengths": lambda: post(jpeg_type, jpeg_body, extra=b"content-length: 3\r\n"),
        "bad chunks": lambda: (
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: %b\r\n"
            b"transfer-encoding: chunked\r\n\r\nzz\r\n" % jpeg_type
        ),
        "no http": lambda: dice.randbytes(500),
        "tls": lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(300),
        "method": lambda: (
            dice.choice([b"PUT", b"DELETE", b"BREW", b"CONNECT"])
            + b" /predict HTTP/1.1\r\nhost: x\r\n\r\n"
        ),
        "url": lambda: (
            b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n"
            % dice.choice([b"../../etc/passwd", b"%00", b"%ff%fe", b"a" * 20_000, b"//[", b"\xe4"])
        ),
    }


# What is not a whole request: nothing but the end of the connection tells the server so.
CUT = ("no http", "tls")


def slow(port: int, data: bytes, dice: random.Random) -> int:
    """Send some of it, then byte by byte until the server has enough."""
    connection = connect(port)
    connection.settimeout(5)  # for half a head there is no answer
    begun = dice.choice([0, 10, 400, len(data) // 2])
    connection.sendall(data[:begun])
    try:
        for at in range(begun, begun + 200):
            connection.sendall(data[at : at + 1])
            time.sleep(0.1)
        return read_answer(connection)[0]
    except OSError:
        return 0


def attack(port: int, jpeg: bytes, count: int, pipe: Any) -> None:
    """Process of the attackers: send back the statuses of each kind."""
    found: dict[str, Counter[int]] = {}
    lock = threading.Lock()
    left = iter(range(count))

    def note(kind: str, status: int) -> None:
        with lock:
            found.setdefault(kind, Counter())[status] += 1

    def one() -> None:
        dice = random.Random(threading.get_ident())
        kinds = hostile_kinds(jpeg, dice)
        names = list(kinds)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            name = names[number % len(names)]
            connection = connect(port)
            connection.settimeout(10)
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(kinds[name]())
                    if name in CUT:
                        connection.shutdown(socket.SHUT_WR)
                note(name, read_answer(connection)[0])
            except TimeoutError:
                note(name, -1)
            except OSError:
                note(name, 0)
            finally:
                connection.close()

    def patient(act: Callable[..., int]) -> None:
        dice = random.Random(1)
        for _ in range(3):
            note(act.__name__, act(port, post(*form(jpeg)), dice))

    others = [threading.Thread(target=patient, args=(slow,)) for _ in range(10)]
    for thread in others:
        thread.start()
    together(one)
    for thread in others:
        thread.join()
    pipe.send(found)


def hostile(model: Path, files: list[Path], options: argparse.Namespace) -> None:
    good = files[:8]
    requests = {file: post(*form(file.read_bytes())) for file in good}
    expected = {file: p.raw_score for file, p in zip(good, AD(model).stream(good), strict=True)}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "link").symlink_to("/etc/passwd")
        os.mkfifo(root / "pipe")
        (root / "folder").mkdir()
        with server(model, "--root", root, "--timeout", 3) as (process, port):
            attackers, pipe = in_process(attack, port, files[0].read_bytes(), options.hostile)
            answers: Counter[str] = Counter()
            while not pipe.poll():
                for file, request in requests.items():
                    connection = connect(port)
                    connection.sendall(request)
                    status, body, _ = read_answer(connection)
                    right = status == 200 and abs(
                        json.loads(body)["raw_score"] - expected[file]
                    ) <= 1e-4 * abs(expected[file])
                    answers["right" if right else f"status {status}"] += 1
                    connection.close()
            found = pipe.recv()
            attackers.join()
            alive = process.poll() is None
    statuses: Counter[int] = sum(found.values(), Counter())
    wrong = {
        kind: bad
        for kind, counts in found.items()
        if (bad := [s for s in counts if not (s == 0 or 400 <= s < 500 or s == 503)])
    }
    print(
        f"hostile     {statuses.total()} requests: {dict(sorted(statuses.items()))} (0: closed); "
        f"other than 4xx, 503, closed: {wrong or 'none'}; good ones next to them: {dict(answers)}; "
        f"{'alive' if alive else 'CRASHED'}   (none; all right or 503; alive)"
    )


# ---------------------------------------------------------------------------------- main

PARTS = {part.__name__: part for part in (throughput, soak, hostile, start, stop)}


def jpegs(folder: Path, target: Path) -> list[Path]:
    """The test images as JPEGs of 512 pixels."""
    files = []
    for number, file in enumerate(find_images(folder / "test")[:80]):
        picture = cv2.resize(read_image(file), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        files.append(target / f"{number:03d}.jpg")
        write_picture(picture, files[-1])
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with train/good and test")
    parser.add_argument("--model", type=Path, help="a trained model instead of training one")
    parser.add_argument("--requests", type=int, default=10_000, help="of soak")
    parser.add_argument("--hostile", type=int, default=2_000, help="requests of hostile")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model
        if model is None:
            with contextlib.redirect_stdout(sys.stderr):
                AD("padim", options.folder, save_path=folder).train()
            model = folder / "model"
        files = jpegs(options.folder, folder)
        for part in options.only:
            PARTS[part](model, files, options)


if __name__ == "__main__":
    main()
