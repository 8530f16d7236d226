"""``mapsto studio``: runs, frontiers, streams and a service as pages in a browser."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mapsto.cli.app import StoreOption, app, print_note, print_text
from mapsto.errors import MissingExtra, SpecError, command
from mapsto_runtime.shown import short

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mapsto.studio.services import Services

__all__: list[str] = []


@app.command()
def studio(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders with runs and searches in them, at any depth. [default: runs]", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8090,
    host: Annotated[str, typer.Option(help="An address of this machine alone: 127.0.0.1 or ::1.")] = "127.0.0.1",
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Data that the advisor is asked on: a folder or a file.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="With --data: the column that is predicted.")] = None,
    service: Annotated[
        str, typer.Option(metavar="URL", help="A running service to look at, such as http://127.0.0.1:8080.")
    ] = "",
    key: Annotated[
        str,
        typer.Option(
            envvar="MAPSTO_KEY",
            show_envvar=False,
            help="Of --service: an API key. With the scope metrics its load is shown, with admin versions are promoted. "
            "[default: $MAPSTO_KEY]",
        ),
    ] = "",
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of --service: of whom it has its certificate, in PEM.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Show runs, the frontiers of searches and streams as pages in a browser, on this machine alone.

    A run that has not come to its end is followed. The pages need no network, and read without JavaScript too.

    Example: mapsto studio runs

    Example: mapsto studio --service http://127.0.0.1:8080 --key KEY
    """
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        raise MissingExtra("fastapi", "studio", where="mapsto studio") from error
    from mapsto.service.hosts import LOOPBACK, Hosts
    from mapsto.studio.application import application
    from mapsto.studio.results import Folders
    from mapsto.studio.site import Studio

    del fastapi, uvicorn
    if host not in LOOPBACK:
        raise SpecError(
            f"the studio asks nobody who he is, so that it listens on this machine alone, and '{short(host)}' is no such address",
            where="--host",
            hint="give 127.0.0.1, and reach it from elsewhere through ssh -L",
        )
    if data is not None and not data.exists():
        raise SpecError("there is no such file or folder", where=f"--data {data}", hint="check the path")
    served = _service(service, key, ca)
    usual = Path("runs")
    given = folders or ([usual] if usual.is_dir() or (served is None and data is None) else [])
    shown = Folders(given) if given or data is not None else None
    listening = _listening(host, port)
    made = application(Studio(folders=shown, services=served, store=store, data=data, target=target), hosts=Hosts(host))
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
    print_text(f"studio at {address}; end with Ctrl-C")
    sys.stdout.flush()
    try:
        asyncio.run(_serve(made, listening))
    except KeyboardInterrupt:
        pass
    finally:
        listening.close()
    print_note("ended")


def _service(url: str, key: str, ca: Path | None) -> Services | None:
    """Raises `SpecError` where there is an address without a key, or a key without an address."""
    if not url:
        return None
    if not key:
        raise SpecError("a service is asked with a key", where="--service", hint="give --key KEY, or set MAPSTO_KEY")
    from mapsto.service.client import Client
    from mapsto.studio.services import Services

    client = Client(url, key, seconds=10.0, tries=1, ca=ca)
    return Services(client=lambda request: client, where=url)


async def _serve(made: FastAPI, listening: socket.socket) -> None:
    import uvicorn

    settings = uvicorn.Config(made, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
    await uvicorn.Server(settings).serve([listening])


def _listening(host: str, port: int) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((host, port))
        opened.listen(128)  # who follows the line that is printed waits, and is not refused
    except OSError as error:
        opened.close()
        raise SpecError(
            f"{host}:{port} cannot be listened on ({error.strerror})",
            where="mapsto studio",
            hint=f"take another port: {command('mapsto studio --port 0')}",
        ) from error
    return opened
