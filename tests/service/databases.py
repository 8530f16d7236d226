"""A PostgreSQL server of its own for tests: made, started on loopback, and ended."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
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
def postgresql(folder: Path) -> Generator[str]:
    """The URL of an empty database. Skips the test, with the reason, where there is no server to start."""
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, places), os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    programs, user, before = Path(found).parent, "postgres", as_server()
    if before:
        for each in (folder, *folder.parents[:3]):
            each.chmod(each.stat().st_mode | 0o755)
        shutil.chown(folder, user, user)
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
        yield f"postgresql://{user}@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(timeout=30)
        log.close()
