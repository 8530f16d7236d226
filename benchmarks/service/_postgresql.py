"""A PostgreSQL server of its own on loopback, which can be stopped and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import _environments
import _sides

_USER = "postgres"


class Server:
    """A server over a folder; `url` is of an empty database."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, _sides.free_port()
        self.url = f"postgresql://{_USER}@127.0.0.1:{self._port}/postgres"
        places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
        found = shutil.which("initdb", path=os.pathsep.join([*map(str, places), os.environ.get("PATH", "")]))
        if found is None:
            raise _environments.NotRunError("PostgreSQL's initdb is not installed")
        self._programs, self._before = Path(found).parent, list[str]()
        if os.getuid() == 0:  # it refuses to run as root
            self._before = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
            for each in (folder, *folder.parents[:3]):
                each.chmod(each.stat().st_mode | 0o755)
            shutil.chown(folder, _USER, _USER)
        made = [*self._before, self._programs / "initdb", "-D", folder / "data", "-U", _USER, "--auth=trust"]
        subprocess.run([*map(str, made)], check=True, capture_output=True)
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = ["-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder)]
        command = [*self._before, str(self._programs / "postgres"), "-D", str(self._folder / "data"), *options]
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        asked = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self._port)]
        end = time.monotonic() + 60
        while subprocess.run(asked, capture_output=True, check=False).returncode != 0:
            if time.monotonic() > end:
                raise _environments.NotRunError("PostgreSQL did not start")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, with its clients' connections."""
        self._process.send_signal(2)  # SIGINT: fast, without waiting for clients
        self._process.wait(timeout=60)


@contextlib.contextmanager
def running(folder: Path) -> Generator[Server]:
    """A server, ended at the end. Raises `NotRunError` where there is none to start."""
    folder.mkdir(parents=True)
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()
