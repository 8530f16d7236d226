"""A PostgreSQL server of its own for tests: made, started on loopback, and ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["as_server", "postgresql"]


def as_server() -> list[str]:
    """What stands before a command of the server: PostgreSQL refuses to run as root. Skips the test where there is no way around."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@contextmanager
def postgresql() -> Generator[tuple[str, Path]]:
    """The URL of an empty database, and the server's folder. Skips the test, with the reason, where there is no server to start.

    The folder is none of pytest's, which closes its own to other users whenever another run of tests begins.
    """
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, places), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    programs, user, before = Path(found).parent, "postgres", as_server()
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    if before:
        shutil.chown(folder, user, user)
    try:
        yield from _served(folder, programs, user, before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _served(folder: Path, programs: Path, user: str, before: list[str]) -> Generator[tuple[str, Path]]:
    data = folder / "data"
    subprocess.run(
        [*before, str(programs / "initdb"), "-D", str(data), "-U", user, "--auth=trust", "--no-sync"],
        check=True, capture_output=True,
    )  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    log = (folder / "log").open("w")
    server = subprocess.Popen([*before, str(programs / "postgres"), "-D", str(data), *options], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            asked = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        yield f"postgresql://{user}@127.0.0.1:{port}/postgres", folder
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for whoever is connected
        server.wait(timeout=30)
        log.close()
