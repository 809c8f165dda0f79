"""Commands for a line: watch, camera."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from ..errors import OptionError, missing_extra
from .base import (
    Check,
    DeviceName,
    Json,
    Threads,
    Thresh,
    as_path,
    command,
    open_model,
    print_table,
    seconds,
)

if TYPE_CHECKING:
    from ..line.journal import Row
    from ..line.line import Settings
    from ..line.tally import State

_LINE_EVERY = 60.0  # seconds, of a log

Output = Annotated[
    Path,
    typer.Option(
        parser=as_path, metavar="DIR", help="Folder of the journal and the pictures, on this disk."
    ),
]
Pictures = Annotated[
    str, typer.Option(metavar="WHICH", help="Pictures of which images: all, anomalous or none.")
]
Hardcore = Annotated[bool, typer.Option("--hardcore", help="Draw boxes instead of a heatmap.")]
Regions = Annotated[
    bool, typer.Option("--regions", help="Draw outlines of what deviates instead of a heatmap.")
]
Annotate = Annotated[
    bool, typer.Option("--annotate", help="Verdict, score and threshold above each picture.")
]
Keep = Annotated[
    Optional[float],  # noqa: UP045 - typer reads it
    typer.Option(metavar="DAYS", help="Remove pictures and rows that are older. [default: none]"),
]
Url = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--webhook", metavar="URL", help="Post each verdict there as JSON."),
]
SecretFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(parser=as_path, metavar="FILE", help="File with the secret that signs webhooks."),
]
Broker = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--mqtt", metavar="HOST/TOPIC", help="Publish each verdict there, QoS 1."),
]
Metrics = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(metavar="PORT", help="Counters for Prometheus at 127.0.0.1:PORT/metrics."),
]


@command
def watch(
    model: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(parser=as_path, metavar="MODEL", help="Model directory."),
    ] = None,
    inbox: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(parser=as_path, metavar="INBOX", help="Folder in which images arrive."),
    ] = None,
    output: Output = Path("Output"),
    status: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path, metavar="DIR", help="Say how the line with this --output is doing."
        ),
    ] = None,
    thresh: Thresh = 0.8,
    settle: Annotated[
        float, typer.Option(help="Seconds without a change after which a file is complete.")
    ] = 1.0,
    give_up: Annotated[
        float, typer.Option(help="Seconds after which a file that cannot be read is an error.")
    ] = 30.0,
    poll: Annotated[
        bool,
        typer.Option("--poll", help="Look every second; for drives that tell of no changes."),
    ] = False,
    good: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Where files go that are good."),
    ] = None,
    bad: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(parser=as_path, metavar="DIR", help="Where files go that are anomalous."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Link files there, so that they stay in the inbox.")
    ] = False,
    keep: Keep = None,
    pictures: Pictures = "all",
    hardcore: Hardcore = False,
    regions: Regions = False,
    annotate: Annotate = False,
    webhook: Url = None,
    secret_file: SecretFile = None,
    mqtt: Broker = None,
    metrics: Metrics = None,
    device: DeviceName = None,
    threads: Threads = None,
    check: Check = None,
    as_json: Json = False,
) -> None:
    """Inspect every image that arrives in a folder, until it is ended."""
    try:
        from ..line.transfers import LINK, MOVE
        from ..line.watching import Inbox
        from ..line.watching import watch as run
    except ModuleNotFoundError as error:
        raise missing_extra("Watching a folder", "line", str(error.name)) from error
    if status is not None:
        _print_status(status, as_json)
        return
    if model is None or inbox is None:
        raise OptionError("watch takes a MODEL and an INBOX, or --status DIR alone.")
    watched = Inbox(inbox, settle, give_up, poll, good, bad, LINK if link else MOVE)
    watched.check(output)
    look = {"threshold": thresh, "hardcore": hardcore, "regions": regions, "annotate": annotate}
    with _shown() as show:
        settings = _settings(
            output, pictures, keep, webhook, secret_file, mqtt, metrics, as_json, look, show
        )
        stored = open_model(model, device, threads, check)
        _until_ended(lambda stop: run(stored, watched, settings, stop))


@command
def camera(
    model: Annotated[
        Path, typer.Argument(parser=as_path, metavar="MODEL", help="Model directory.")
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Device number, RTSP or HTTP URL, video file, or an image sequence such as "
            "part_%04d.png.",
        ),
    ],
    output: Output = Path("Output"),
    thresh: Thresh = 0.8,
    every: Annotated[
        str,
        typer.Option(metavar="N|TIME", help="Inspect each N-th frame, or one in a time as 0.5s."),
    ] = "1",
    trigger: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="What asks for a verdict: none (each frame), stdin (a line, which names the "
            "picture), or change (another picture that lies still).",
        ),
    ] = "none",
    change: Annotated[
        float, typer.Option(help="Gray levels that are a change for --trigger change.")
    ] = 8.0,
    show: Annotated[
        bool,
        typer.Option("--show", help="Show the pictures in a window, where there is a display."),
    ] = False,
    keep: Keep = None,
    pictures: Pictures = "all",
    hardcore: Hardcore = False,
    regions: Regions = False,
    annotate: Annotate = False,
    webhook: Url = None,
    secret_file: SecretFile = None,
    mqtt: Broker = None,
    metrics: Metrics = None,
    device: DeviceName = None,
    threads: Threads = None,
    check: Check = None,
    as_json: Json = False,
) -> None:
    """Inspect what a camera shows, until it is ended or the video is over."""
    try:
        from ..line.camera import Camera, watch_camera
    except ModuleNotFoundError as error:
        raise missing_extra("A camera", "line", str(error.name)) from error
    number = int(every) if every.isdigit() else 1
    time_between = 0.0 if every.isdigit() else seconds(every) or 0.0
    seen = Camera(source, number, time_between, trigger, change)
    look = {"threshold": thresh, "hardcore": hardcore, "regions": regions, "annotate": annotate}
    with _shown() as tell, _window(show) as window:
        settings = _settings(
            output, pictures, keep, webhook, secret_file, mqtt, metrics, as_json, look, tell
        )
        stored = open_model(model, device, threads, check)
        _until_ended(
            lambda stop: watch_camera(stored, seen, settings, stop, show=window(stored, look))
        )


def _settings(
    output: Path,
    pictures: str,
    keep: float | None,
    webhook: str | None,
    secret_file: Path | None,
    mqtt: str | None,
    metrics: int | None,
    as_json: bool,
    look: dict[str, Any],
    show: Callable[[State], object],
) -> Settings:
    from ..line.line import Settings
    from ..line.mqtt import Mqtt
    from ..line.receivers import Receiver
    from ..line.webhook import Webhook, read_secret

    receivers: list[Receiver] = []
    if webhook is not None:
        secret = None if secret_file is None else read_secret(secret_file)
        receivers.append(Webhook(webhook, secret))
    elif secret_file is not None:
        raise OptionError("--secret-file signs webhooks; it needs --webhook.")
    if mqtt is not None:
        receivers.append(Mqtt(mqtt))
    return Settings(
        output, pictures, keep, receivers, metrics, _print_row if as_json else None, show, look
    )


def _print_row(row: Row) -> None:
    times = {"arrived": row.arrived, "begun": row.begun, "ended": row.ended}
    values = {"key": row.key, "verdict": row.verdict, **row.answer, "picture": row.picture, **times}
    print(json.dumps(values), flush=True)


def _until_ended(run: Callable[[threading.Event], object]) -> None:
    """Run until a signal comes; what is under way is finished."""
    from ..support.signals import ended_by_signals

    stop = threading.Event()
    with ended_by_signals(stop.set):
        run(stop)


@contextmanager
def _shown() -> Iterator[Callable[[State], None]]:
    """What shows the state, one line on a terminal; and events as lines on stderr."""
    from tqdm import tqdm

    from ..support import say

    class Words(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(Exception):  # a log on a full disk must not end the line
                self._say(record)

        def _say(self, record: logging.LogRecord) -> None:
            known = vars(logging.makeLogRecord({}))
            facts = [f"{n}: {v}" for n, v in vars(record).items() if n not in known]
            facts = [fact for fact in facts if not fact.startswith("message: ")]
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            text = f"{moment} {record.getMessage()}"
            if record.exc_info:
                text += f"\n{logging.Formatter().formatException(record.exc_info)}"
            say(f"{text} ({', '.join(facts)})" if facts else text)

    log = logging.getLogger("anomaly_ad.line")
    handler, level = Words(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    is_terminal = sys.stderr.isatty()
    line = tqdm(bar_format="{desc}", dynamic_ncols=True) if is_terminal else None
    said: dict[str, Any] = {"at": -_LINE_EVERY, "state": None}

    def show(state: State) -> None:
        if line is not None:
            line.set_description_str(str(state))
            said["state"] = state
            return
        now = time.monotonic()
        if state != said["state"] and now - said["at"] >= _LINE_EVERY:
            say(str(state))
            said.update(at=now, state=state)

    try:
        yield show
    finally:
        if line is not None:
            line.close()
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def _window(wanted: bool) -> Iterator[Callable[..., Any]]:
    """What makes a window for pictures, or none."""
    if not wanted:
        yield lambda stored, look: None
        return
    from ..drawing.screen import window
    from ..images import Photograph
    from ..inspection import Inspector

    with window("anomaly-ad") as show:

        def made(stored: Any, look: dict[str, Any]) -> Callable[..., None]:
            inspector = Inspector(stored, **look)

            def shown(frame: Any, decision: Any) -> None:
                photo = Photograph.of_array(frame.image, inspector.framing)
                show(inspector.picture(photo.picture(), decision))

            return shown

        yield made


def _print_status(folder: Path, as_json: bool) -> None:
    from ..line.journal import Reader
    from ..line.tally import describe

    with Reader(folder) as journal:
        found = describe(journal)
    if as_json:
        print(json.dumps(found))
        return
    total = found["good"] + found["anomalous"] + found["errors"]
    waiting = "?" if found["waiting"] is None else f"{found['waiting']:,}"
    lines = {
        "source": found["source"],
        "running": "yes" if found["running"] else "no",
        "inspected": f"{total:,}: {found['good']:,} good, {found['anomalous']:,} anomalous, "
        f"{found['errors']:,} not inspected",
        "waiting": waiting,
        "last minute": f"{found['last_minute']:,}",
        "drift": found["drift"],
    }
    if found["dropped"]:
        lines["dropped"] = f"{found['dropped']:,} frames"
    for receiver, number in found["undelivered"].items():
        lines[f"to {receiver}"] = f"{number:,} to be sent"
    if found["given_up"]:
        lines["given up"] = f"{found['given_up']:,} that nobody took within 7 days"
    if found["trouble"]:
        lines["trouble"] = found["trouble"]
    if found["last_error"] is not None:
        lines["last error"] = f"{found['last_error']['path']}: {found['last_error']['error']}"
    print_table(lines)
