"""HTTP of one connection.

Uvicorn leaves a client all the time in the world to send a request and to take its answer; here
each has a deadline, headers have a limit, and so has the number of connections.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .gate import Visit
from .refusal import Refusal

_MAX_HEADERS = 32_768  # bytes
_READ = 262_144  # bytes that asyncio reads at a time
_MAX_PIPELINE = 64  # requests of a connection that wait for those in front of them
# After a signal idle connections stay open for this long: a request may be on its way in them.
_LAST_REQUESTS = 0.25  # seconds
# Seconds without a byte after which a connection that lingers is closed; after a signal, in all.
SILENCE = 2.0


class Protocol(HttpToolsProtocol):
    """HTTP of one connection, with deadlines and limits; `serve` sets its attributes."""

    timeout = 30.0  # seconds for a request to arrive, and for its answer to be taken
    max_connections = 512
    lingering: ClassVar[dict[asyncio.Task[None], None]] = {}  # the oldest first

    @staticmethod
    def note_refused(client: tuple[str, int] | None, status: int) -> None:
        """Told of every refusal that the application does not see."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._answer_begun = False
        self._running: RequestResponseCycle | None = None  # what is being answered
        self._begun = False  # whether a request has begun that is not complete
        self._header_bytes: int | None = 0  # None behind the headers
        self._beside_body = 0  # bytes since the last of a body: trailers, for instance
        self._waiting_since = 0.0  # for the client
        self._refused: Refusal | None = None  # once nothing more is read
        self._leaving = False
        self._last = False  # whether no request has a turn after the one that is being answered
        self._aborted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; where there are too many, the one that waits for its client longest has to go."""
        super().connection_made(transport)
        # Head and body of an answer are two writes; the second must not wait for the client to
        # have acknowledged the first. asyncio sees to it for some sockets only.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Uvicorn reads on with every answer, however many requests wait already.
        resume = self.flow.resume_reading
        self.flow.resume_reading = (  # type: ignore[method-assign]
            lambda: None if self.pipeline else resume()
        )
        # Writing is paused as long as anything is not sent: the deadline below then is exact.
        transport.set_write_buffer_limits(0)
        if len(self.connections) > self.max_connections:
            ours = [one for one in self.connections if isinstance(one, Protocol)]
            waiting = [one for one in ours if one is not self and one._waits()]
            # Those that have asked nothing go before those that are sending.
            oldest = min(
                waiting, key=lambda one: (not one._is_idle(), one._waiting_since), default=self
            )
            oldest._abort()
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_deadline()
        self._stop_write_deadline()
        if exc is None and not self._aborted:
            self._linger()
        if self._running:
            # Uvicorn tells the last request that has arrived, which may not have had its turn yet.
            self._running.disconnected = True
            self._running.message_event.set()
            if not self._running.response_started:
                self._visit(self._running).broke_off = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of headers; the parser would take any number."""
        if self.transport.is_closing() or self._refused:
            return
        if self._header_bytes is not None:
            self._header_bytes += len(data)
        self._beside_body += len(data)
        self._parse(data)
        # Only now: one chunk may hold the end of the headers and the beginning of the body.
        if self._header_bytes is None:
            too_many = self._beside_body > 2 * _READ
        else:
            too_many = self._header_bytes > _MAX_HEADERS
        if too_many:
            self._refuse_headers()
        if self._is_idle() and self._deadline is None:
            self._wait_for_next()

    def _parse(self, data: bytes | memoryview) -> None:
        """Feed the parser.

        A wish to go on with another protocol (`Upgrade`: HTTP/2 without TLS, WebSocket) is not
        granted, which is up to the server: RFC 9110, section 7.8. The parser knows no way to do
        so, and would take what follows for that protocol, so the headers go through a new one
        without the wish.
        """
        self._unset_keepalive_if_required()
        pieces: list[bytes | memoryview] = [data]  # the last one is the next
        while pieces and not (self.transport.is_closing() or self._refused):
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserError:
                self._refuse(Refusal(400, "This is no HTTP request that can be understood."))
            except httptools.HttpParserUpgrade as wish:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse(Refusal(400, "This is no proxy."))
                    return
                (end,) = wish.args
                pieces += [memoryview(piece)[end:], self._head_without_upgrade()]
                self.parser = httptools.HttpRequestParser(self)
                # As uvicorn has set its own.
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those behind a chunked body are nobody's."""
        if self._header_bytes is not None:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._beside_body = 0
        self._waiting_since = self.loop.time()
        super().on_body(body)

    def on_message_begin(self) -> None:
        """A request begins; its time does when those in front of it are answered."""
        if self._is_idle() and not self._begun:
            self._wait_for_request()
        self._begun = True
        self._beside_body = 0
        super().on_message_begin()
        self.scope["state"]["visit"] = Visit(self._give_up)

    def on_headers_complete(self) -> None:
        """The headers are here."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > _MAX_HEADERS:
            self._refuse_headers()
            raise ValueError("the parser ends here")
        if self.parser.should_upgrade():
            return  # they come again
        super().on_headers_complete()
        self._header_bytes = None
        if self._running is None:
            self._running = self.cycle
        if self._leaving:
            self.cycle.keep_alive = False
        if len(self.pipeline) > _MAX_PIPELINE:
            self._refuse(Refusal(503, "Too many requests were sent before the first was answered."))
            raise ValueError("the parser ends here")

    def on_message_complete(self) -> None:
        """The whole request is here."""
        if self.parser.should_upgrade():
            return
        self._stop_deadline()
        self._begun = False
        self._header_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer was written; what is left of it has the deadline that it had."""
        self._running = self.pipeline[-1][0] if self.pipeline else None
        self._answer_begun = False
        if not self.flow.write_paused:
            self._stop_write_deadline()
        self._waiting_since = self.loop.time()
        if self._last:
            self.transport.close()
        turn = len(self.pipeline) == 1 and self.cycle.more_body and not self.transport.is_closing()
        if turn and self._refused:
            # Of the one that was refused while others were in front of it.
            self._answer_unseen(self._refused)
        super().on_response_complete()
        if self._begun and self._deadline is None and self._waits():
            self._unset_keepalive_if_required()
            self._wait_for_request()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what a client has sent before it closed its half; without that, close too."""
        if self.transport.is_closing() or self._waits():
            return False
        self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        """The client does not take its answer as fast as it is written."""
        super().pause_writing()
        self._answer_begun = True
        if self._write_deadline is None:
            self._write_deadline = self.loop.call_later(self.timeout, self._abort)

    def resume_writing(self) -> None:
        """It has taken what was written; if that was not all of an answer, time runs on."""
        if not self._answer_begun:
            self._stop_write_deadline()
        super().resume_writing()

    def shutdown(self) -> None:
        """Take no further requests, but those that are on their way.

        However many wait for those in front of them, they have `timeout` for their turn to come.
        """
        self._leaving = True
        if self._is_idle():
            self.loop.call_later(_LAST_REQUESTS, self._close_if_idle)
        else:
            super().shutdown()
            self.loop.call_later(self.timeout, self._end_turns)

    @classmethod
    def end_lingering(cls) -> None:
        """Who has had an answer for a while must have taken it."""
        for task in cls.lingering:
            task.get_loop().call_later(SILENCE, task.cancel)

    def _is_idle(self) -> bool:
        return self._running is None

    @staticmethod
    def _visit(cycle: RequestResponseCycle) -> Visit:
        visit: Visit = cycle.scope["state"]["visit"]
        return visit

    def _waits(self) -> bool:
        """Whether there is nothing to do until the client sends more."""
        if self.transport.is_closing() or self.pipeline:
            return False
        return self._is_idle() or self.cycle.more_body

    def _close_if_idle(self) -> None:
        in_head = self._begun and self._header_bytes is not None
        if self._is_idle() and not in_head:
            self.transport.close()

    def _end_turns(self) -> None:
        self._last = True

    def _wait_for_next(self) -> None:
        """For a next request a connection is kept open for a while."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _wait_for_request(self) -> None:
        self._stop_deadline()
        self._waiting_since = self.loop.time()
        self._deadline = self.loop.call_later(self.timeout, self._refuse_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _refuse_late(self) -> None:
        if not self._begun:
            self.transport.close()  # browsers open connections that they never use
        else:
            self._refuse(
                Refusal(408, f"The request took longer than {self.timeout:g} s to arrive.")
            )

    def _refuse_headers(self) -> None:
        self._refuse(
            Refusal(431, f"The address and the headers are larger than {_MAX_HEADERS:,} bytes.")
        )

    def _give_up(self) -> None:
        """The queue has no room for a request whose client is slow."""
        if self._waits() and not self.cycle.response_started:
            self._refuse(Refusal(408, "Others wait for the room that this slow request takes."))
        else:
            self._abort()

    def _abort(self) -> None:
        self._aborted = True
        self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer by ourselves, and read no further."""
        if self.transport.is_closing() or self._refused:
            return
        self._refused = refusal
        if not self._waits():
            # Requests in front of it are answered, and then this one is refused; without its
            # headers it has no turn, and the connection just ends.
            self.cycle.keep_alive = False
        elif self._header_bytes is not None:
            self._answer_unseen(refusal)
        else:
            if not self.cycle.response_started:
                self._visit(self.cycle).refused = refusal.status
                self._answer(refusal)
            self.transport.close()

    def _answer_unseen(self, refusal: Refusal) -> None:
        """Refuse what the application does not see."""
        self.note_refused(self.client, refusal.status)
        self._answer(refusal)
        self.transport.close()

    def _linger(self) -> None:
        """See to it that an answer arrives although not all was read that its client sends."""
        lies_idle = self._is_idle() and (self.cycle is None or self.cycle.keep_alive)
        if lies_idle and not (self._begun or self._refused):
            return  # all was read, and the answers are there
        if len(self.lingering) >= self.max_connections // 4:
            oldest = next(iter(self.lingering))
            self.lingering.pop(oldest)
            oldest.cancel()
        with suppress(OSError):
            # A second one, since the transport closes its own now.
            connection = self.transport.get_extra_info("socket").dup()
            seconds = SILENCE if self._leaving else self.timeout
            task = self.loop.create_task(_take_rest(connection, seconds))
            self.lingering[task] = None
            task.add_done_callback(lambda done: self.lingering.pop(done, None))
            self.tasks.add(task)  # the server waits for these
            task.add_done_callback(self.tasks.discard)

    def _answer(self, refusal: Refusal) -> None:
        headers = {**refusal.headers, "connection": "close"}
        head = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + refusal.body)


async def _take_rest(connection: socket.socket, timeout: float) -> None:
    """Take what a client still sends that was answered before it had sent all.

    If its bytes were left unread, the system would reset the connection, and it would lose the
    answer. RFC 9112, section 9.6.
    """
    with connection, suppress(OSError, TimeoutError):
        connection.setblocking(False)
        connection.shutdown(socket.SHUT_WR)
        loop, rubbish = asyncio.get_running_loop(), bytearray(_READ)
        end = loop.time() + timeout
        # Not asyncio.wait_for: before Python 3.12 it may miss the end where bytes come.
        async with asyncio.timeout(SILENCE) as silence:
            while await loop.sock_recv_into(connection, rubbish):
                silence.reschedule(min(end, loop.time() + SILENCE))
                await asyncio.sleep(0)  # what is here already is taken without a turn of others
