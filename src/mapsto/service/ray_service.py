"""The service under Ray Serve: replicas that come and go with the load, around one state.

`mapsto serve --ray local` starts Ray on this machine and ends it; another address joins a cluster that runs. Ray's proxy takes the
connections and hands requests to replicas, each with the application of `mapsto serve`.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import ssl
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from mapsto.errors import MapstoError, MissingExtra, SpecError
from mapsto.recipe.serving import Scale
from mapsto.service.children import private_folder
from mapsto.service.supervisor import Settings, beside, only_one, shared_settings

__all__ = ["LOCAL", "RayService"]

LOCAL = "local"
_NAME = "mapsto"
_STORE_BYTES = 80 << 20
"""Of Ray's object store, of which nothing here has a use; about the least that it takes."""
_START_SECONDS = 300.0
_TRIES = 8
"""Ray gives its processes and a proxy 30 seconds to start, which a busy machine may exceed."""
_LOOK_SECONDS = 0.5
_SILENT_SECONDS = 60.0
"""After which Ray is taken to be gone: its calls wait for a process that has ended without end."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",  # by default 10, as long as a whole burst
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
}


class _GoneError(MapstoError):
    """Ray cannot be asked any more."""

    exit_code = 1


class RayService:
    """The service on Ray.

    Parameters
    ----------
    ray
        ``local``, or the address of a cluster.
    host, port
        That Ray's proxy listens on.
    """

    def __init__(self, settings: Settings, scale: Scale, *, ray: str, host: str, port: int) -> None:
        if ray == LOCAL:
            _prepare_environment()  # before Ray is loaded, which reads it then
        try:
            from ray import serve  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtra("ray[serve]", "scale", where="mapsto serve --ray") from error
        del serve
        if ray != LOCAL and "://" not in settings.state:
            raise SpecError(
                "replicas on several hosts cannot share a file",
                where="--state",
                hint="give postgresql://USER@HOST/NAME, or serve with --ray local",
            )
        if settings.grpc or (settings.tls is not None and settings.tls.client_ca):
            raise SpecError(
                "replicas under Ray answer over HTTP, and ask no client for a certificate",
                where="mapsto serve --ray",
                hint="leave out gRPC and the clients' authority, or serve without --ray",
            )
        self._settings, self._scale = settings, scale
        self._address, self._host, self._port = ray, host, port
        self._alone = only_one(settings.folder)
        self._ended = self._gone = False
        self._reloads = self._wanted = 0

    def run(self, started: Callable[[], None], *, note: Callable[[str], None]) -> None:
        """Start, call `started` once a replica answers, and tell of what changes until a signal.

        Raises `MapstoError` where it cannot be started.
        """
        place = private_folder()
        folder = Path(tempfile.mkdtemp(prefix=f"mapsto-{os.getpid()}-"))  # of Ray's sockets and logs
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            (place / "metrics").mkdir()
            self._listen_to_signals()
            self._start_ray(folder)
            self._listen_to_signals()  # Ray has set its own
            self._deploy(place)
            if self._await_answer():
                started()
            self._watch(note, place)
        finally:
            stuck = self._stop()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            shutil.rmtree(place, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            self._alone.release()
            if stuck:  # threads of Ray would keep this process for ever
                why = f"{sys.exc_info()[1]}; " if sys.exc_info()[1] else ""
                sys.stderr.write(
                    f"mapsto: {why}Ray did not end in time and was killed; what was acknowledged is kept\n"
                )
                sys.stderr.flush()
                os._exit(1)

    # -- private

    def _listen_to_signals(self) -> None:
        def end(number: int, frame: Any) -> None:
            self._ended = True

        def reload(number: int, frame: Any) -> None:
            self._wanted += 1

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        signal.signal(signal.SIGHUP, reload)

    def _start_ray(self, folder: Path) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet: dict[str, Any] = {"log_to_driver": True, "configure_logging": False, "namespace": _NAME}
        if self._address != LOCAL:
            ray.init(address=self._address, **quiet)
            return
        for rest in reversed(range(_TRIES)):
            try:
                ray.init(
                    num_cpus=max(os.cpu_count() or 1, round(self._scale.cpus + 0.5)),
                    include_dashboard=False,  # it asks nobody who he is
                    object_store_memory=_STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(folder),
                    **quiet,
                )
                return
            except Exception as error:  # Ray raises that itself where a busy machine took longer than it waits
                ray.shutdown()
                _kill_children()  # of a start that came half way
                if self._ended or not rest:
                    raise MapstoError(f"Ray did not start: {error}", where="mapsto serve --ray") from error

    def _deploy(self, place: Path) -> None:
        """Start Ray Serve and have it start replicas."""
        from ray import serve  # pyright: ignore[reportMissingImports]

        options: dict[str, Any] = {
            "host": self._host,
            "port": self._port,
            "request_timeout_s": self._settings.limits.deadline + 5.0,  # of ours is told in the protocol's words
        }
        if self._settings.tls is not None:
            options |= {"ssl_certfile": self._settings.tls.cert, "ssl_keyfile": self._settings.tls.key}
        quiet: Any = {"log_level": "WARNING", "enable_access_log": False}
        for rest in reversed(range(_TRIES)):
            try:
                serve.start(proxy_location="EveryNode", http_options=options, logging_config=quiet)
                break
            except TimeoutError as error:
                if not rest:
                    raise MapstoError(f"Ray Serve did not start: {error}", where="mapsto serve --ray") from error
            if self._ended:
                return
        self._place = place
        self._put()

    def _put(self) -> None:
        """Have Ray run what is wanted now; replicas that are there stay."""
        from ray import serve  # pyright: ignore[reportMissingImports]

        from mapsto.service.ray_replica import Replica

        scale, ending = self._scale, self._settings.ending
        replica: Any = serve.ingress()(Replica)
        deployed: Any = serve.deployment(replica)
        deployment = deployed.options(
            name=_NAME,
            ray_actor_options={"num_cpus": scale.cpus},
            user_config={"reloads": self._reloads},
            max_ongoing_requests=scale.max_requests,
            max_queued_requests=10 * scale.max_requests,
            graceful_shutdown_wait_loop_s=0.5,
            graceful_shutdown_timeout_s=ending.window + ending.most + 30.0,
            health_check_period_s=2.0,
            health_check_timeout_s=30.0,
            autoscaling_config={
                "min_replicas": scale.min_replicas,
                "max_replicas": scale.max_replicas,
                "target_ongoing_requests": scale.target_requests,
                "upscale_delay_s": scale.upscale_delay,
                "downscale_delay_s": scale.downscale_delay,
                "look_back_period_s": scale.look_back,
            },
        )
        serve.run_many(
            [serve.RunTarget(deployment.bind(self._replica_settings()), name=_NAME, route_prefix="/")],
            wait_for_ingress_deployment_creation=True,
            wait_for_applications_running=False,
        )

    def _replica_settings(self) -> dict[str, Any]:
        own = self._settings
        common = shared_settings(own)  # with paths that hold in other processes' folders too
        if "://" not in own.state:
            common["state"] = str(Path(own.state).resolve())
        if own.privacy_key is not None and common["privacy"] is not None:
            common["privacy"]["key"] = str(own.privacy_key.resolve())
        for each in common["models"]:
            each["folder"] = str(Path(each["folder"]).resolve())
        others = beside(own, common)
        return {
            **common,
            "folder": str(own.folder.resolve()),
            "limits": asdict(own.limits),
            "access": asdict(own.access),
            "run": None if own.run is None else asdict(own.run),
            "address": self._host,
            "metrics": str(self._place / "metrics") if self._address == LOCAL else "",
            "beside": [{"name": each.name, "module": each.module, "settings": each.settings} for each in others],
        }

    def _await_answer(self) -> bool:
        """Whether a replica answers; False where a signal came before."""
        end = time.monotonic() + _START_SECONDS
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        scheme = "http" if self._settings.tls is None else "https"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}/v2/health/ready"
        own = ssl.create_default_context()
        own.check_hostname, own.verify_mode = False, ssl.CERT_NONE  # it is asked whether it answers, and told nothing
        while not self._ended:
            status, _, message = self._status()
            if status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise MapstoError(f"no replica could be started: {message}", where="mapsto serve --ray")
            if time.monotonic() > end:
                raise MapstoError(f"no replica answered within {_START_SECONDS:.0f} s: {message}", where=url)
            with (
                suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(url, timeout=5.0, context=own) as answer,
            ):
                if answer.status == 200:
                    return True
            time.sleep(_LOOK_SECONDS)
        return False

    def _watch(self, note: Callable[[str], None], place: Path) -> None:
        """Tell of replicas that come and go, and of what is wrong, until a signal."""
        before, said = -1, ""
        while not self._ended:
            status, replicas, message = self._status()
            if before not in (-1, replicas):
                note(f"{replicas} {'replica answers' if replicas == 1 else 'replicas answer'}, before {before}")
            before = replicas
            wrong = message if status not in ("RUNNING", "DEPLOYING") else ""
            if wrong and wrong != said:
                note(f"Ray says '{status}': {wrong}")
            said = wrong
            if self._wanted != self._reloads:
                self._reloads = self._wanted
                self._put()
            time.sleep(_LOOK_SECONDS)

    def _status(self) -> tuple[str, int, str]:
        """What Ray says of the application: its status, the replicas that answer, and a message."""
        from ray import serve  # pyright: ignore[reportMissingImports]

        answers: list[Any] = []
        if not _done(lambda: answers.append(serve.status().applications.get(_NAME)), _SILENT_SECONDS):
            self._gone = True
            raise _GoneError(f"Ray has not answered for {_SILENT_SECONDS:.0f} s", where="mapsto serve --ray")
        found = answers[0]
        if found is None:
            return "NOT_STARTED", 0, ""
        own = found.deployments.get(_NAME)
        if own is None:
            return found.status.value, 0, found.message
        states = {getattr(state, "value", state): count for state, count in own.replica_states.items()}
        return found.status.value, int(states.get("RUNNING", 0)), found.message or own.message

    def _stop(self) -> bool:
        """End replicas, which store what they have acknowledged, and Ray where it is ours; whether that could not be waited for."""
        import ray  # pyright: ignore[reportMissingImports]
        from ray import serve  # pyright: ignore[reportMissingImports]

        ending = self._settings.ending

        def end() -> None:
            if ray.is_initialized():
                if serve.status().applications:
                    serve.delete(_NAME)  # others may use the cluster; of ours nothing is left to wait for
                ray.shutdown()

        try:
            stuck = not _done(end, 5.0 if self._gone else ending.window + ending.most + _SILENT_SECONDS)
        except Exception as error:  # whatever it is: its processes are ended below
            sys.stderr.write(f"mapsto: Ray ended with {type(error).__name__}\n")
            stuck = False
        if self._address == LOCAL:
            _kill_children()
        return stuck


def _done(work: Callable[[], None], seconds: float) -> bool:
    """Whether something comes to its end within so many seconds; it goes on where it does not. Raises what it raises."""
    raised: list[BaseException] = []

    def whole() -> None:
        try:
            work()
        except BaseException as error:  # it is raised again below
            raised.append(error)

    thread = threading.Thread(target=whole, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return not thread.is_alive()


def _kill_children() -> None:
    for left in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            left.kill()


def _prepare_environment() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if (
        "RAY_AUTH_MODE" not in os.environ
    ):  # who reaches Ray's ports can do nothing without the token, which is of this run alone
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
