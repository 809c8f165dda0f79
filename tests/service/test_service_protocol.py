"""The protocol and the log of the service: what clients can do to a connection, and to whom."""

import asyncio
import contextlib
import json
import logging
import os
import re
import socket
import struct
import time

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import uvicorn
from uvicorn.server import ServerState

from anomaly_ad.service.admission import Admission
from anomaly_ad.service.app import InPieces
from anomaly_ad.service.log import _Lines
from anomaly_ad.service.protocol import Protocol, _take_rest

SLOW = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n"


async def echo(scope, receive, send):
    """Says the method, the path and the size of the body."""
    pause = 0.25 * (scope["path"] == "/slow")
    await asyncio.sleep(pause)
    size, more = 0, scope["path"] != "/early"  # that one does not wait for the body
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await asyncio.sleep(pause)
    said = f"{scope['method']} {scope['path']} {size}".encode()
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


def converse(client, app=echo, send_buffer=None, protocol=Protocol, **attributes):
    """Call a client with the address of a server in this process."""

    async def talk():
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=0.4
        )
        config.load()
        timed = type("Timed", (protocol,), {"timeout": 0.3, **attributes})
        state = ServerState()
        server = await asyncio.get_running_loop().create_server(
            lambda: timed(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        )
        for listener in server.sockets:
            if send_buffer:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        async with server:
            return await asyncio.to_thread(client, server.sockets[0].getsockname())

    return asyncio.run(talk())


def said(*pieces, half_close=False, heads=None, **options):
    """What is answered until the connection is closed; (status, body) each.

    Pieces are sent one after the other; for None something is waited for, for a number so long.
    The heads of the answers are added to a list.
    """
    heads = [] if heads is None else heads

    def client(address):
        data = b""
        with socket.create_connection(address, timeout=20) as connection:
            for piece in pieces:
                if piece is None:
                    data += connection.recv(65536)
                elif isinstance(piece, float):
                    time.sleep(piece)
                else:
                    connection.sendall(piece)
                    time.sleep(0.05)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            begun = time.monotonic()
            while got := connection.recv(65536):
                data += got
            assert time.monotonic() - begun < 10
            return data

    answers, data = [], converse(client, **options)
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        size = int(re.search(rb"content-length: (\d+)", head).group(1))
        answers.append((int(head.split()[1]), data[:size].decode()))
        heads.append(head)
        data = data[size:]
    return answers


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_another_protocol_is_not_taken_up(protocol):
    """Clients that ask for HTTP/2 in this way send what they want all the same (curl, Java)."""
    wish = POST + f"connection: upgrade, x\r\nupgrade: {protocol}\r\n\r\n".encode()
    hidden = b"GET / HTTP"
    expected = (200, "POST / 10")
    assert said(wish + hidden) == [expected]
    assert said(wish, hidden) == [expected]
    assert said((wish + hidden) * 3 + wish, hidden) == 4 * [expected]
    assert said(wish[:60], wish[60:], hidden, wish + hidden) == 2 * [expected]
    get = wish.replace(b"POST", b"GET").replace(b"content-length: 10\r\n", b"")
    assert said(get, get, SLOW) == [(200, "GET / 0"), (200, "GET / 0"), (200, "GET /slow 0")]
    chunked = wish.replace(b"content-length: 10", b"transfer-encoding: chunked")
    assert said(chunked, b"3\r\nabc\r\n0\r\n\r\n") == [(200, "POST / 3")]
    assert [status for status, _ in said(wish.replace(b"POST / ", b"POST http://[ "))] == [400]


def test_this_is_no_proxy():
    ((status, body),) = said(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    assert status == 400 and "no proxy" in body


def test_the_time_of_a_request_begins_when_its_turn_comes():
    """The first one takes longer than a request may take to arrive."""
    post = POST + b"\r\n0123456789"
    slow = (200, "GET /slow 0")
    for cut in (20, len(post) - 5):  # within the head, within the body
        early, late = post[:cut], post[cut:]
        assert said(SLOW + early, None, late) == [slow, (200, "POST / 10")]
        answers = said(SLOW + early)
        assert answers[0] == slow and [status for status, _ in answers[1:]] == [408]
    assert said(SLOW + SLOW + early, None, None, late) == [slow, slow, (200, "POST / 10")]


def test_what_is_wrong_with_a_request_does_not_take_the_answer_of_the_one_before():
    noted = []
    note = staticmethod(lambda client, status: noted.append(status))
    second = POST.replace(b"content-length: 10", b"transfer-encoding: chunked") + b"\r\nxyz"
    first, (status, _) = said(SLOW + second, note_refused=note)
    assert first == (200, "GET /slow 0") and status == 400 and noted == [400]
    assert said(SLOW + POST + b"\r\n0", half_close=True) == [first]


def test_a_connection_is_not_read_on_while_its_requests_wait(monkeypatch):
    """However much a client sends, little of it is here."""
    monkeypatch.setattr("anomaly_ad.service.protocol._MAX_PIPELINE", 1_000)
    received = []

    class Counting(Protocol):
        timeout = 5

        def data_received(self, data):
            received.append(len(data))
            super().data_received(data)

    def client(address):
        with socket.create_connection(address, timeout=20) as connection:
            connection.setblocking(False)
            begun = time.monotonic()
            before = 900 * b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n" + SLOW
            connection.sendall(before + POST.replace(b": 10", b": 99999999") + b"\r\n")
            while time.monotonic() - begun < 0.4:  # the slow one is worked on
                with contextlib.suppress(BlockingIOError):
                    connection.send(bytes(1_000_000))
            return sum(received)

    assert converse(client, protocol=Counting) < 1_000_000


def test_requests_that_wait_are_limited(monkeypatch):
    monkeypatch.setattr("anomaly_ad.service.protocol._MAX_PIPELINE", 3)
    heads = []
    answers = said(SLOW + 20 * b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n", heads=heads)
    assert [status for status, _ in answers] == [200, 200, 200, 200, 503]
    assert b"retry-after: 1" in heads[-1]


def test_a_wish_for_another_protocol_gives_no_more_time():
    wish = POST + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
    begun = time.monotonic()

    def client(address):
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(wish[:20])
            time.sleep(0.8)
            connection.sendall(wish[20:])
            return connection.recv(12)

    assert converse(client, timeout=1).endswith(b"408") and time.monotonic() - begun < 1.6


def test_a_half_closed_connection_with_half_a_head_is_answered():
    assert said(SLOW + b"GET /x", half_close=True) == [(200, "GET /slow 0")]


@pytest.mark.parametrize(
    "sent",
    [
        [POST.replace(b"/", b"/early", 1) + b"\r\n", b"0123456789"],
        [POST + b"\r\n0123456789", b"\r\n"],
    ],
)
def test_an_idle_connection_is_closed_whatever_was_sent_last(sent):
    assert len(said(*sent)) == 1


@pytest.mark.parametrize("close", [b"", b"connection: close\r\n"])
def test_an_early_answer_reaches_a_client_that_is_still_sending(close):
    body = bytes(20_000_000)
    head = POST.replace(b"/", b"/early", 1).replace(b": 10", f": {len(body)}".encode())
    assert said(head + close + b"\r\n", body, timeout=5) == [(200, "POST /early 0")]


class Leaving(Protocol):
    """The service is told to end when the connection has sent a word."""

    word = b"/last"

    def data_received(self, data):
        super().data_received(data)
        self.timeout_keep_alive = 20
        if self.word in data:
            self.shutdown()


@pytest.mark.parametrize(("timeout", "answered"), [(20, 5), (0.7, 2)])
def test_what_waits_at_the_end_has_a_while_for_its_turn(timeout, answered):
    sent = 4 * SLOW + b"GET /last HTTP/1.1\r\nhost: x\r\n\r\n"
    answers = said(sent, protocol=Leaving, timeout=timeout)
    assert [status for status, _ in answers] == answered * [200]


@pytest.mark.parametrize("before", [b"", b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"])
@pytest.mark.parametrize("cut", [20, len(POST) + 7])  # within the head, within the body
def test_half_a_request_at_the_end_is_answered(before, cut):
    post, heads = POST + b"\r\n0123456789", []
    sent = [*([before, None] if before else []), post[:cut], 0.4, post[cut:]]
    answers = said(*sent, heads=heads, timeout=20, protocol=Leaving, word=b"POST")
    assert answers[-1] == (200, "POST / 10") and b"connection: close" in heads[-1]


@pytest.mark.parametrize(("waiting", "pause"), [(0, 0), (1, 0), (0, 0.5)])
def test_the_last_answers_arrive_whatever_is_sent_behind_them(monkeypatch, waiting, pause):
    """Bytes that nobody reads would have the system reset the connection."""
    monkeypatch.setattr("anomaly_ad.service.protocol.SILENCE", 1)
    body = bytes(100_000)  # more than the client has room for, and less than the server has

    async def app(scope, receive, send):
        await asyncio.sleep(0.2)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def client(address):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(address)
            connection.sendall((1 + waiting) * SLOW.replace(b"slow", b"last"))
            time.sleep(pause)
            connection.settimeout(0.4)
            more = POST.replace(b": 10", b": 99999999") + b"\r\n" + bytes(10_000_000)
            with contextlib.suppress(TimeoutError, ConnectionError):
                connection.sendall(more)
            connection.settimeout(20)
            taken = 0
            while got := connection.recv(65536):
                taken += len(got)
            assert not goes_on(connection, 5)
            return taken

    taken = converse(client, app, protocol=Leaving, timeout=20)
    assert taken > (1 + waiting) * len(body)


def test_who_has_gone_before_its_answer_is_known():
    visits = []

    async def app(scope, receive, send):
        visits.append(scope["state"]["visit"])
        await echo(scope, receive, send)

    def client(address):
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(SLOW)
            time.sleep(0.1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(0.7)

    converse(client, app)
    assert [visit.broke_off for visit in visits] == [True]


def goes_on(connection, seconds, size=1):
    """Whether a client can go on sending for so long."""
    begun = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - begun < seconds:
            connection.sendall(bytes(size))
            time.sleep(0.02 if size == 1 else 0)
        return True
    return False


def answered_early(address):
    """A connection whose answer was written before all was sent."""
    connection = socket.create_connection(address, timeout=20)
    head = POST.replace(b"/", b"/early", 1).replace(b": 10", b": 1000000")
    connection.sendall(head + b"connection: close\r\n\r\n0")
    time.sleep(0.1)
    return connection


@pytest.mark.parametrize("size", [1, 100_000])
def test_who_goes_on_sending_after_its_answer_delays_no_end(monkeypatch, size):
    monkeypatch.setattr("anomaly_ad.service.protocol.SILENCE", 0.3)

    def client(address):
        with answered_early(address) as connection:
            assert goes_on(connection, 1, size)
            (task,) = Protocol.lingering
            task.get_loop().call_soon_threadsafe(Protocol.end_lingering)
            assert not goes_on(connection, 2, size)
            assert connection.recv(12) == b"HTTP/1.1 200"

    converse(client, timeout=20)
    assert not Protocol.lingering


@pytest.mark.parametrize("size", [1, 100_000])
def test_who_goes_on_sending_after_its_answer_may_for_a_while(size):
    def client(address):
        with answered_early(address) as connection:
            assert not goes_on(connection, 2, size)

    converse(client, timeout=0.5)


def test_who_sends_without_pause_takes_no_turn_of_others(monkeypatch):
    """What is here already is taken without waiting for it."""
    left, turns = iter(range(20, -1, -1)), []

    async def take(loop, connection, buffer):
        return next(left)

    async def others():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    async def both():
        here, there = socket.socketpair()
        other = asyncio.create_task(others())
        with there:
            await _take_rest(here, 5)
        other.cancel()

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_recv_into", take)
    asyncio.run(both())
    assert len(turns) >= 10


def test_of_too_many_that_go_on_sending_the_oldest_has_to_stop():
    def client(address):
        with answered_early(address) as first:
            assert goes_on(first, 0.2)
            with answered_early(address) as second:
                assert not goes_on(first, 0.5)
                assert goes_on(second, 0.2)
                assert second.recv(12) == b"HTTP/1.1 200"

    converse(client, timeout=20, max_connections=4)


def test_connections_that_are_idle_make_room_before_those_that_send():
    def client(address):
        with contextlib.ExitStack() as stack:

            def connect(*pieces):
                connection = socket.create_connection(address, timeout=20)
                stack.enter_context(connection)
                send(connection, *pieces)
                return connection

            def send(connection, *pieces):
                for piece in pieces:
                    connection.sendall(piece)
                time.sleep(0.05)

            def is_open(connection):
                connection.settimeout(0.05)
                try:
                    return bool(connection.recv(1))
                except TimeoutError:
                    return True
                except ConnectionResetError:
                    return False

            begin = POST + b"\r\n0"
            moving, still, idle = connect(begin), connect(begin), connect()
            send(moving, b"1")
            first = connect(begin)
            assert [is_open(one) for one in (moving, still, idle)] == [True, True, False]
            second = connect()
            assert [is_open(one) for one in (moving, still, first)] == [True, False, True]
            send(moving, b"23456789")
            send(first, b"123456789")
            send(second, SLOW)
            for one in (moving, first, second):
                one.settimeout(20)
                assert one.recv(12) == b"HTTP/1.1 200"

    converse(client, timeout=20, max_connections=3)


@pytest.mark.parametrize(("pause", "complete"), [(0, True), (0.04, False)])
def test_an_answer_has_one_deadline_however_little_is_taken_at_a_time(pause, complete):
    body = bytes(3_000_000)

    async def app(scope, receive, send):
        with Admission(1, len(body)).enter() as stay:
            await InPieces(body, stay)(scope, receive, send)

    def take(address):
        taken = 0
        with socket.create_connection(address, timeout=20) as client:
            if pause:  # what the system keeps for a client does not count
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while got := client.recv(16384):
                    taken += len(got)
                    time.sleep(pause)
        assert complete or not Protocol.lingering  # who gets no more is not waited for
        return taken

    begun = time.monotonic()
    taken = converse(take, app, send_buffer=65536, timeout=1)
    assert (taken > len(body)) == complete and time.monotonic() - begun < 10


def test_who_leaves_before_a_large_answer_is_noticed(caplog):
    body = bytes(3_000_000)

    async def app(scope, receive, send):
        await asyncio.sleep(0.2)
        with Admission(1, len(body)).enter() as stay:
            await InPieces(body, stay)(scope, receive, send)

    def client(address):
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(SLOW)
        time.sleep(0.5)

    converse(client, app)
    assert not [record for record in caplog.records if record.name == "asyncio"]


# -------------------------------------------------------------------------------- the log


@contextlib.contextmanager
def lines_to(descriptor):
    handler = _Lines(descriptor)
    logger = logging.getLogger("test.lines")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


def test_a_log_that_nobody_reads_stops_nobody(monkeypatch):
    monkeypatch.setattr("anomaly_ad.service.log._PATIENCE", 0.1)
    end, begin = os.pipe()
    with os.fdopen(end, encoding="utf-8") as pipe:
        with lines_to(begin) as logger:
            os.close(begin)
            for number in range(10_000):
                logger.error("%d %s", number, "x" * 100)
            first = json.loads(pipe.readline())
            while not logger.handlers[0]._waiting.empty():
                pipe.readline()
            logger.error("at last")
        said = [json.loads(line) for line in pipe]
    assert first["message"].startswith("0 xx") and said[-1]["message"] == "at last"
    left_out = said[-1]["lines_left_out"]
    assert 10_000 - left_out > 4_096 and left_out > 1_000


def test_a_log_waits_for_a_descriptor_that_does_not():
    end, begin = os.pipe()
    os.set_blocking(begin, False)
    with os.fdopen(end, encoding="utf-8") as pipe, lines_to(begin) as logger:
        os.close(begin)
        for number in range(2_000):
            logger.error("%d %s", number, "x" * 100)
        time.sleep(0.1)  # the pipe is full now
        numbers = [int(json.loads(pipe.readline())["message"].split()[0]) for _ in range(2_000)]
    assert numbers == list(range(2_000))
