"""One replica of the service under Ray Serve: the application of `worker.py` in a process of Ray's, with its writer beside it.

Replicas share the state and nothing else. On each host one of them keeps the processes that fit and learn: the one that has a file's
lock, which the operating system frees when the replica dies, so that another takes over. Between hosts the leases of the state decide.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mapsto.errors import MapstoError
from mapsto.service.children import Child, Children, EndsAgainError, private_folder
from mapsto.service.kept_answers import replica_lock

__all__ = ["Replica", "common_settings"]

_LOOK_SECONDS = 0.5
"""Between two looks at the processes beside this one."""
_EXPIRE_SECONDS = 60.0
"""Between two times that answers which replicas of before have kept for too long are overwritten."""
_MOST_REPLICAS = 256
"""Of a host: an answer's id has so many places for who gave it."""
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""As `metrics.FOLDER_VARIABLE`, which may be imported only once this is set."""


class Replica:
    """What Ray Serve starts as many of as are needed.

    Parameters
    ----------
    settings
        Of `worker.answering`, without ``worker``; ``address``, the one that Ray's proxy listens on; ``metrics``, a folder of this host, or
        empty; ``beside``, name, module and settings of each process that a host needs once.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        _listen_on_the_node_alone()
        if settings["privacy"] is not None:
            _mask_standard_error(settings["privacy"])
        self._settings = settings
        folder = Path(settings["folder"])
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        metrics = _metrics_folder(folder, settings)
        os.environ[_METRICS] = str(metrics)
        self._number, self._own = _own_number(folder, metrics)
        self._keeper = FileLock(folder / "beside.lock", timeout=0, thread_local=False)
        self._place = private_folder()
        self._children = Children(
            beside=[each["name"] for each in settings["beside"]], where="mapsto serve --ray", without=(_METRICS,)
        )
        self._wrong = ""
        self._reloads = 0
        self._expired = time.monotonic()

    async def __serve_build_asgi_app__(self) -> Any:
        """The application; Ray calls this in the event loop that answers."""
        from mapsto.service.server import follow
        from mapsto.service.worker import answering

        common = common_settings(self._settings, self._place)
        self._children.start(Child("writer", "mapsto.service.writer", common))
        self._parts = await asyncio.to_thread(
            answering,
            {**self._settings, **common, "worker": self._number},
            address=self._settings["address"],
        )
        while not Path(common["socket"]).exists():
            await asyncio.to_thread(self._look)
            await asyncio.sleep(0.02)
        self._following = [asyncio.ensure_future(follow(self._parts.service)), asyncio.ensure_future(self._keep())]
        return self._parts.handler

    def reconfigure(self, settings: Mapping[str, Any]) -> None:
        """Load packages again whose files have changed, where more reloads were asked for than before."""
        asked, self._reloads = int(settings["reloads"]) - self._reloads, int(settings["reloads"])
        if asked > 0 and hasattr(self, "_parts"):
            self._parts.service.reload_soon()
            for child in self._children.all:
                if child.name == "learner":
                    self._children.restart(child)

    def check_health(self) -> None:
        """Raises where Ray is to start another replica in place of this one."""
        if self._wrong:
            raise MapstoError(self._wrong, where="mapsto serve --ray")

    async def __del__(self) -> None:
        """Store what was acknowledged, and end the processes beside this one; Ray waits for what is being answered before."""
        if not hasattr(self, "_following"):
            return
        self._parts.service.ready = False
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await self._parts.service.closed()
        await asyncio.to_thread(self._children.stop, ("writer", "fitter", "learner"), seconds=20.0)
        self._parts.close()
        self._keeper.release()
        self._own.release()
        shutil.rmtree(self._place, ignore_errors=True)

    # -- private

    async def _keep(self) -> None:
        while not self._wrong:
            try:
                await asyncio.to_thread(self._look)
            except EndsAgainError as error:
                self._wrong = error.what
            await asyncio.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        self._children.look(_say)
        if not self._keeper.is_locked:
            try:
                self._keeper.acquire()
            except Timeout:  # another replica of this host keeps them
                return
            for each in self._settings["beside"]:
                self._children.start(
                    Child(
                        each["name"],
                        each["module"],
                        {**each["settings"], **common_settings(self._settings, self._place)},
                    )
                )
        if time.monotonic() - self._expired >= _EXPIRE_SECONDS:
            from mapsto.service.erased_answers import overwrite_of_ended_replicas

            self._expired = time.monotonic()
            until = time.time() - self._settings["limits"]["kept_seconds"]
            overwrite_of_ended_replicas(Path(self._settings["folder"]), [(None, until)])


def common_settings(settings: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """What each process of a replica is told; `place` is the replica's own folder."""
    own = {name: settings[name] for name in ("state", "durability", "models", "trust", "privacy", "tracing")}
    return {
        **own,
        "supervisor": os.getpid(),
        "socket": str(place / "writer"),
        "traces": str(place / "traces"),
        "answers": settings["folder"],
        "replicas": True,
    }


def _say(text: str) -> None:
    sys.stderr.write(f"mapsto: {text}\n")


def _mask_standard_error(privacy: Mapping[str, Any]) -> None:
    """Have all that this process and those beside it write to standard error go through a mask."""
    from mapsto.data.privacy.settings import Privacy
    from mapsto.service.masked_log import MaskedLog
    from mapsto.service.row_masking import masking_of

    own = os.dup(2)
    masking = masking_of(Privacy.of(privacy["settings"], where="serve"), Path(privacy["key"]))
    os.dup2(MaskedLog(masking, lambda content: os.write(own, content)).end, 2)


def _listen_on_the_node_alone() -> None:
    """Have Ray bind the port by which proxies reach this replica to the node's own address. Ray 2.60 binds every one."""
    import importlib

    import ray  # pyright: ignore[reportMissingImports]

    replica: Any = importlib.import_module("ray.serve._private.replica")
    bind: Any = getattr(replica, "add_port_to_grpc_server", None)
    if bind is None:
        _say("this Ray cannot be told where a replica listens: it may be on every address of this machine")
        return
    own = ray.util.get_node_ip_address()
    address = f"[{own}]" if ":" in own else own

    def on_the_node(server: Any, where: str) -> Any:
        return bind(server, where.replace("[::]", address))

    replica.add_port_to_grpc_server = on_the_node


def _metrics_folder(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Where the replicas of this host count together; those of runs before go."""
    if settings["metrics"]:
        return Path(settings["metrics"])
    own = folder / f"metrics-{settings['run']['name']}"
    try:
        own.mkdir(mode=0o700)
    except FileExistsError:
        return own
    for other in folder.glob("metrics-*"):
        if other != own:
            shutil.rmtree(other, ignore_errors=True)
    return own


def _own_number(folder: Path, metrics: Path) -> tuple[int, FileLock]:
    """A number that no other replica of this host has, and the lock that says so."""
    for number in range(_MOST_REPLICAS):
        lock = FileLock(replica_lock(folder, number), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            continue
        held = folder / f"replica-{number}.pid"
        if held.is_file() and (before := held.read_text(encoding="utf-8")).isdigit():
            from mapsto.service.metrics import forget_process

            forget_process(int(before), metrics)
        held.write_text(str(os.getpid()), encoding="utf-8")
        return number, lock
    raise MapstoError(f"a host has {_MOST_REPLICAS} replicas at most", where=str(folder), hint="lower max_replicas")
