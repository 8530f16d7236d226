"""The package of `whole` behind ``mapsto serve``: adapted over HTTP, asked while its digits turn, taught late, watched by Prometheus."""

from __future__ import annotations

import re
import shutil
import signal
import statistics
import subprocess
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _alarms import Webhook, free_address, installed, until, watching
from _digits_that_turn import Counts, Event, events
from _recording import Recording
from _trained import MAPSTO, environment

from mapsto.service.client import Answer, Client

__all__ = ["served"]

BATCH, LATE, TIMED = 10, 5, 100
"""Digits a request, requests after which its labels come, and requests of one digit that are timed."""


@dataclass(frozen=True)
class Service:
    url: str
    key: str
    process: subprocess.Popen[str]


@contextmanager
def _service(place: Path, recording: Recording) -> Iterator[Service]:
    """``mapsto serve`` on a port that is free, with a state of its own."""
    shutil.rmtree(place / "run" / "service", ignore_errors=True)
    recording.say("mapsto serve run --port 0 --admin &", "command")
    log = place / "serve.log"
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen(
            [*MAPSTO, "serve", "run", "--port", "0", "--admin"],
            cwd=place, env=environment(place) | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=written, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    try:
        until(lambda: "feedback" in log.read_text(encoding="utf-8") or process.poll() is not None, "it serves")
        said = log.read_text(encoding="utf-8")
        url, key = re.search(r"http://[\d.:]+", said), re.search(r"for this run: (\S+)", said)
        if url is None or key is None:
            raise RuntimeError(f"mapsto serve ended:\n{said}")
        recording.say(said.splitlines()[0], "output")
        yield Service(url.group(), key.group(1), process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def served(place: Path, recording: Recording, counts: Counts) -> dict[str, Any]:
    """What became of the accuracy, what it took, and whether the alarm came."""
    began = time.monotonic()
    digits = events(counts)
    with _service(place, recording) as service:
        operator = Client(service.url, service.key)
        recording.say("mapsto keys make run --name desk --scope predict --scope learn --days 90", "command")
        made = subprocess.run(
            [*MAPSTO, "keys", "make", "run", "--name", "desk", "--scope", "predict", "--scope", "learn", "--days", "90"],
            cwd=place, env=environment(place), check=True, capture_output=True, text=True,
        )  # fmt: skip
        recording.say(made.stdout.strip()[:8] + "…", "output")
        desk = Client(service.url, made.stdout.strip())
        with _watched(place, service, recording) as hook:
            started = time.perf_counter()
            version = operator.adapt(
                "run", [png for png, _ in digits.support], [label for _, label in digits.support], shared=True
            )
            adapting = time.perf_counter() - started
            operator.promote("run", version)
            recording.say(f"# adapted over HTTP to {len(digits.support)} drawings: {version}, {1e3 * adapting:.0f} ms")
            unlabelled = digits.upright[: -counts.labelled]
            for start in range(0, len(unlabelled), 50):
                desk.infer("run", [png for png, _ in unlabelled[start : start + 50]])
            before = _share(_taught(operator, desk, digits.upright[-counts.labelled :]))
            recording.say(f"# before the drift {before:.1f} % of {counts.labelled} digits are read right")
            calm = _p_value(service)
            turned = time.monotonic()
            with_learning = _taught(operator, desk, digits.turned)
            after = _share(with_learning[: counts.judged // 2])
            learnt = _share(with_learning[-counts.judged :])
            answering = operator.versions("run")["active"]
            until(lambda: _p_value(service) < 0.001, "the service's own metric of drift")
            p_value = _p_value(service)
            if hook is not None:
                until(lambda: "MapstoInputDrift" in hook.fired, "the alert of Alertmanager")
            alarmed = time.monotonic() - turned
            shown = f"{p_value:.1e}" if p_value else "below 1e-300"
            recording.say(f"# the digits turn: {after:.1f} % at first; p-value of inputs being as before {shown}")
            if hook is not None:
                recording.say(f"# the webhook was told: {', '.join(sorted(hook.fired))}")
            without = _share(_asked(desk, digits.turned[-counts.judged :], version))
            recording.say(
                f"# the last {counts.judged}: {learnt:.1f} % by {answering}, which learnt; {without:.1f} % by {version}, which did not"
            )
            times = [_seconds(desk, png) for png, _ in digits.upright[:TIMED]]
    return {
        "seconds": time.monotonic() - began,
        "ms to adapt": 1e3 * adapting,
        "before": before,
        "right after the turn": after,
        "without learning": without,
        "with learning": learnt,
        "p-value before": calm,
        "p-value after": p_value,
        "alerts": None if hook is None else sorted(hook.fired),
        "seconds from the turn to the alert": alarmed,
        "ms a request": 1e3 * statistics.median(times),
    }


@contextmanager
def _watched(place: Path, service: Service, recording: Recording) -> Iterator[Webhook | None]:
    """Prometheus and Alertmanager, where they are installed; None where not."""
    if not installed():
        recording.say("# Prometheus and Alertmanager are not installed: not run")
        with nullcontext():
            yield None
        return
    hook, alertmanager = Webhook(), free_address()
    shutil.rmtree(place / "watch", ignore_errors=True)
    recording.command(
        f"mapsto monitor init watch run --webhook {hook.url}",
        [*MAPSTO, "monitor", "init", "watch", "run", "--url", service.url, "--webhook", hook.url,
         "--alertmanager", alertmanager, "--interval", "1", "--window", "30", "--hold", "3", "--p99", "10", "--queue-wait", "10"],
        folder=place, environment=environment(place),
    )  # fmt: skip
    with watching(place / "watch", alertmanager):
        yield hook
    hook.server.shutdown()


def _taught(operator: Client, desk: Client, stream: list[Event]) -> list[bool]:
    """Whether each was answered right; labels come `LATE` requests after their answers, and no faster than they are learnt."""
    right: list[bool] = []
    waiting: deque[tuple[Answer, list[str]]] = deque()

    def label() -> None:
        answer, labels = waiting.popleft()
        desk.feedback("run", answer, labels)
        until(lambda: operator.learner("run")["behind"] < 5 * BATCH, "labels are learnt")

    for start in range(0, len(stream), BATCH):
        part = stream[start : start + BATCH]
        answer, labels = desk.infer("run", [png for png, _ in part]), [label for _, label in part]
        right += [given == wanted for given, wanted in zip(answer.labels, labels, strict=True)]
        waiting.append((answer, labels))
        if len(waiting) > LATE:
            label()
    while waiting:
        label()
    return right


def _asked(desk: Client, stream: list[Event], version: str) -> list[bool]:
    found: list[bool] = []
    for start in range(0, len(stream), 50):
        part = stream[start : start + 50]
        labels = desk.infer("run", [png for png, _ in part], version=version).labels
        found += [given == wanted for given, (_, wanted) in zip(labels, part, strict=True)]
    return found


def _share(right: list[bool]) -> float:
    return 100 * statistics.mean(right)


def _seconds(client: Client, png: bytes) -> float:
    began = time.perf_counter()
    client.infer("run", [png])
    return time.perf_counter() - began


def _p_value(service: Service) -> float:
    """The smallest over the statistics of the service's metric; 1 where it says nothing yet."""
    request = urllib.request.Request(f"{service.url}/metrics", headers={"Authorization": f"Bearer {service.key}"})
    with urllib.request.urlopen(request, timeout=30) as answered:
        text = answered.read().decode()
    found = re.findall(r"^mapsto_input_drift_p_value\{[^}]*\} (\S+)$", text, re.MULTILINE)
    return min(map(float, found), default=1.0)
