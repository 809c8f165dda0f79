"""The command line: results on stdout, everything else on stderr.

Exit status: 0, 1 for an error (also when an image could not be inspected), 2 for wrong usage, 3 for
an anomaly where --fail-on-anomaly asks for it, 130 after Ctrl-C.

Nothing but typer is imported before a command runs, so --help answers at once.
"""

from __future__ import annotations

import functools
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional, ParamSpec

import typer
import typer.core

from .._version import __version__
from ..errors import AnomalyADError, OptionError

if TYPE_CHECKING:
    from ..model import StoredModel


P = ParamSpec("P")

EXIT_ERROR, EXIT_USAGE, EXIT_ANOMALY, EXIT_INTERRUPTED = 1, 2, 3, 130

# The files of commands: what each is for, and one example.
_TASKS = {
    "learn": ("Learn", "anomaly-ad train Dataset/Train"),
    "inspect": ("Inspect", "anomaly-ad predict Models/model Dataset/Test --hardcore"),
    "quality": ("Limits, figures, choices", "anomaly-ad evaluate Models/model Dataset/Test"),
    "serve": ("In a browser, over HTTP", "anomaly-ad serve Models/model --root Dataset"),
    "line": ("On the line", "anomaly-ad watch Models/model Inbox --output Output/inbox"),
    "deploy": ("Other devices and programs", "anomaly-ad export Models/model --output part.xml"),
    "other": ("Around models", "anomaly-ad doctor"),
}


class _ByTask(typer.core.TyperGroup):
    """Help with the commands by task, and an example of each task."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        by_task: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            found = self.get_command(ctx, name)
            if found is None or found.hidden:
                continue
            task = getattr(found.callback, "__module__", "").rpartition(".")[2]
            by_task.setdefault(task, []).append((name, found.get_short_help_str(60)))
        for task, rows in by_task.items():
            title, example = _TASKS[task]
            with formatter.section(title):
                formatter.write_dl(rows)
                formatter.write_text(f"$ {example}")


app = typer.Typer(
    name="anomaly-ad",
    cls=_ByTask,
    help="Visual inspection that learns from images of good parts only.",
    epilog="Results go to stdout, all else to stderr. Exit status: 0; 1 for an error, or when an "
    "image could not be inspected; 2 for wrong usage; 3 for an anomaly with --fail-on-anomaly.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of `anomaly-ad` and of ``python -m anomaly_ad``."""
    _open_streams()
    # File names may hold bytes that are not text; they go out as they came in.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    app(prog_name="anomaly-ad")


def _open_streams() -> None:
    """Give stdin, stdout and stderr back where they were closed (`2>&-`); what they get is lost.

    Otherwise the next files that are opened have their numbers, and get what is meant for them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Register a command whose errors become a message and an exit status."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                function(*args, **kwargs)
            sys.stdout.flush()
        except AnomalyADError as error:
            said = "\n".join([str(error), *getattr(error, "__notes__", ())])
            _fail(said, EXIT_USAGE if isinstance(error, OptionError) else EXIT_ERROR)
        except KeyboardInterrupt:
            _fail("Interrupted.", EXIT_INTERRUPTED)

    app.command(name=function.__name__.replace("_", "-").rstrip("-"))(guarded)
    return guarded


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Without the place in the code, which tells nothing at the command line."""
    from ..support import say

    say(str(message))


def _fail(message: str, status: int) -> NoReturn:
    print(f"anomaly-ad: {message}", file=sys.stderr)
    raise typer.Exit(status)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"anomaly-ad {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def as_path(text: str | Path) -> Path:
    """A path as it is given: an empty one, as of a variable that is not set, is none."""
    if not str(text):
        raise typer.BadParameter("the path is empty; '.' is the current folder")
    return Path(text)


Model = Annotated[
    Path,
    typer.Argument(parser=as_path, metavar="MODEL", help="Model directory, such as Models/model."),
]
Thresh = Annotated[
    float, typer.Option(help="Score above which an image is anomalous; 0.8 = decision limit.")
]
Seed = Annotated[int, typer.Option(help="Seed of the resampling behind some intervals.")]
Groups = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it
    typer.Option(
        metavar="PATTERN",
        help="Regular expression for the part in a file's path, such as 'part([0-9]+)_', where "
        "parts were photographed several times.",
    ),
]
SavePath = Annotated[
    Path,
    typer.Option("--save-path", parser=as_path, help="Folder to save the model's folder in."),
]
Name = Annotated[
    str, typer.Option(help="Name of the model's folder; another name keeps both models.")
]
Region = Annotated[
    Optional[str],  # noqa: UP045 - typer reads it
    typer.Option(
        metavar="REGION",
        help="A part of the photographs: x1,y1,x2,y2 in pixels, a mask image, a JSON file of "
        "`anomaly-ad roi`, or part.",
    ),
]
Review = Annotated[
    bool,
    typer.Option(
        "--review/--no-review",
        help="Write the page of good images that look odd; it holds photographs.",
    ),
]
DeviceName = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--device", metavar="NAME", help="CPU, GPU, NPU or AUTO, see `devices`. [default: CPU]"
    ),
]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Threads of the CPU. [default: as many as the process may use]"),
]
Check = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        parser=as_path,
        metavar="DIR",
        help="Good images that show whether the limits hold on another --device.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(metavar="NAME", help="local, or ray: processes of this machine or of a cluster."),
]
Address = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="Of the Ray cluster: auto for the one that this machine belongs to. "
        "[default: processes on this machine]"
    ),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="Processes of Ray. [default: as many as there are processors for]"),
]
WorkerThreads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--worker-threads", help="Threads of each process of Ray. [default: 2]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def as_source(text: str | Path) -> object:
    """An address such as s3://bucket/folder as it is; else as `as_path`."""
    return text if "://" in str(text) else as_path(text)


def region(text: str | None) -> object:
    """A rectangle in numbers; else the text, which is a path or a word."""
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        return text


def seconds(text: str | None) -> float | None:
    """A time such as 90s, 10m or 1h in seconds."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text)
    if found is None:
        raise OptionError(f"A time is a number and s, m or h, such as 10m. Received: {text!r}.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def open_model(
    model: Path,
    device: str | None = None,
    threads: int | None = None,
    check: Path | None = None,
) -> StoredModel:
    """The model of a directory, on a device."""
    from ..ad import AD

    return AD(as_directory(model), device=device, threads=threads, check=check).model


def as_directory(model: Path) -> str:
    """A path that cannot be taken for the name of a method."""
    return os.path.join(os.curdir, model)


def print_table(lines: Mapping[str, object]) -> None:
    """Print names and texts in two columns."""
    width = max(map(len, lines))
    for name, text in lines.items():
        print(f"{name:{width}}  {text}")
