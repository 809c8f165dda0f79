"""The command serve, and what its arguments mean."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import OptionError, missing_extra
from .base import Check, DeviceName, Threads, as_path, command

TOKEN_VARIABLE = "ANOMALY_AD_TOKEN"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SHORTEST_TOKEN = 16  # characters


@command
def serve(
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...", help="Model directories; the first is the default."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: a free one.")] = 8000,
    root: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(
            parser=as_path, metavar="DIR", help="Folder whose files clients may name; repeatable."
        ),
    ] = None,
    thresh: Annotated[
        float, typer.Option(help="Score above which an image is anomalous; 0.8 = decision limit.")
    ] = 0.8,
    queue: Annotated[
        int, typer.Option(help="Images that wait for their verdict; more get status 503.")
    ] = 64,
    max_bytes: Annotated[int, typer.Option(help="Largest request.")] = 32_000_000,
    max_pixels: Annotated[int, typer.Option(help="Largest image.")] = 50_000_000,
    timeout: Annotated[
        float, typer.Option(help="Seconds to send a request, to inspect it, to fetch the answer.")
    ] = 30.0,
    token_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            parser=as_path,
            metavar="FILE",
            help="File with the token that clients send. [default: $ANOMALY_AD_TOKEN, if set]",
        ),
    ] = None,
    device: DeviceName = None,
    threads: Threads = None,
    check: Check = None,
) -> None:
    """Answer over HTTP, with a page at /. Prints the address once it is ready."""
    from ..runtime import Device
    from ..runtime.devices import CPU
    from ..service.settings import Settings

    settings = Settings(
        roots=tuple(root or ()),
        threshold=thresh,
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        timeout=timeout,
        token=read_token(token_file, os.environ),
        device=Device(device or CPU, threads),
        check=check,
    )
    directories = name_models(model)
    try:
        from ..service.server import serve as run
    except ModuleNotFoundError as error:
        raise missing_extra("The service", "serve", str(error.name)) from error
    run(directories, settings, host, port)


@command
def roi(
    image: Annotated[
        Path, typer.Argument(parser=as_path, metavar="IMAGE", help="A training image.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            parser=as_path, metavar="FILE", help="JSON file for --roi; one that is there is shown."
        ),
    ] = Path("roi.json"),
    port: Annotated[int, typer.Option(help="Port of the page; 0: a free one.")] = 0,
) -> None:
    """Draw a region of interest on an image, in a browser. Prints the file that is saved."""
    from ..service.drawn import DrawnRegion
    from ..support import say

    with DrawnRegion(image, output, port) as page:
        say(f"Open {page.url} in a browser of this machine, draw, and save. Ctrl-C ends it.")
        while not page.saved.wait(0.2):
            pass
        time.sleep(0.5)  # the answer is on its way
    print(output)


def name_models(given: Sequence[str]) -> dict[str, Path]:
    """Arguments MODEL and NAME=MODEL -> directory by name; the name of a bare one is its folder's.

    Raises
    ------
    OptionError
        A name is given twice, or is none.
    """
    named: dict[str, Path] = {}
    for entry in given:
        name, equals, path = entry.partition("=")
        if not equals or os.path.isdir(entry):
            name, path = Path(os.path.abspath(entry)).name, entry
        if not _NAME.fullmatch(name):
            raise OptionError(
                "The name of a model is made of letters, digits, '.', '_' and '-'. Name it: "
                f"NAME=MODEL. Received: {entry!r}."
            )
        if name in named:
            raise OptionError(f"Two models are called {name!r}. Name them: NAME=MODEL.")
        named[name] = Path(path)
    return named


def read_token(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token from a file or, without one, from the environment; None where there is neither.

    It is not an option of the command line, where every user of the machine could read it.

    Raises
    ------
    OptionError
        The file cannot be read, or the token is too short to be one.
    """
    if file is not None:
        try:
            token, source = file.read_text(encoding="utf-8").strip(), str(file)
        except (OSError, ValueError) as error:
            raise OptionError(f"The token cannot be read from {file}: {error}.") from error
    elif TOKEN_VARIABLE in environment:
        token, source = environment[TOKEN_VARIABLE].strip(), TOKEN_VARIABLE
    else:
        return None
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise OptionError(
            f"A token needs at least {_SHORTEST_TOKEN} printable ASCII characters; the one "
            f"in {source} has {len(token)}. Make one with: openssl rand -hex 32"
        )
    return token
