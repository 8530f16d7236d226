"""Half an hour under mixed load in which everything goes wrong once: nothing that was acknowledged is lost, and memory stays flat.

mapsto bench soak, or python benchmarks/service/soak.py --minutes 30

Half of the time the state is a file on a small disk, half of it a PostgreSQL server. Clients ask for answers, label them, send labels with
their inputs, make private versions and ask those. Every 20 seconds packages are loaded again, one of which is a new one each time. Once a
minute a process is killed (SIGKILL): a worker, the writer, the learner, the supervisor in turn; after the last the service is started again
on its state. In between the disk is filled, the database is restarted, and the clock of the service is set back by an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import _environments
import _models
import _postgresql
import _sides
import common
import numpy as np
import psutil
from service_kills import ended, killed

from mapsto.service.keys import made
from mapsto.service.state import State

KINDS = ("worker", "writer", "learner", "supervisor")
LEARNING, ASKING = 3, 2
"""Clients that send labels, and that ask and label what was answered."""
PAUSE = 0.02
"""Seconds between two requests of a client: the machine is loaded, not flooded."""
ADAPT_SECONDS, RELOAD_SECONDS, SAMPLE_SECONDS = 10.0, 20.0, 2.0
DISK = "256m"
BACK = 3600
"""Seconds by which the clock is set back."""
SETTLED = 2.0
"""Seconds after the service answers again in which a request may still fail for what happened."""


def main(quick: bool = False, *, minutes: float = 30.0) -> dict[str, Any]:
    seconds = 70.0 if quick else 30.0 * minutes
    halves = [half for half in (on_a_file(seconds, quick=quick), on_postgresql(seconds, quick=quick)) if half]
    rows = [half.row() for half in halves]
    file, server = (next((half for half in halves if half.name == name), None) for name in ("file", "PostgreSQL"))
    wanted = 4 if quick else int(minutes) - 2
    tree = common.result(
        "soak",
        conditions={"minutes": round(2 * seconds / 60, 1), "workers": 2, "clients": LEARNING + ASKING + 2, "quick": quick},
        rows=rows,
        targets=[
            common.target("kills of processes under load", f">= {wanted}", sum(half.kills() for half in halves)),
            common.target("times that the disk was full", ">= 1", None if file is None else file.events["disk full"] or None),
            common.target("restarts of the database", ">= 1", server and server.events["database restarted"]),
            common.target("times that the clock was set back", ">= 1", sum(half.events["clock set back"] for half in halves) or None),
            common.target("acknowledged labels that are lost", "<= 0", sum(half.lost for half in halves)),
            common.target("labels that are stored twice, or otherwise than they were given", "<= 0", sum(half.wrong for half in halves)),
            common.target("acknowledged versions that are lost", "<= 0", sum(half.lost_versions for half in halves)),
            common.target("labels that the learner did not take up in the end", "<= 0", sum(half.behind for half in halves)),
            common.target("requests that failed while nothing was wrong", "<= 0", sum(half.failed for half in halves)),
            common.target("growth of memory over a half, %", "<= 5", None if quick else max(half.growth() for half in halves)),
        ],
    )  # fmt: skip
    return common.finished(tree, quick=quick)


def on_a_file(seconds: float, *, quick: bool) -> Half:
    """The state on a disk of its own, where one may be mounted."""
    with tempfile.TemporaryDirectory() as temporary, disk(Path(temporary) / "disk") as place:
        half = Half("file", Path(temporary), place, str(place / "state.sqlite"))
        fill = (lambda: full(place)) if place.is_mount() else None
        half.run(seconds, "disk full", fill, quick=quick)
        return half


def on_postgresql(seconds: float, *, quick: bool) -> Half | None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "service"
        place.mkdir()
        try:
            with _postgresql.running(Path(temporary) / "database") as server:

                @contextlib.contextmanager
                def restarted() -> Generator[None]:
                    server.stop()
                    time.sleep(3)
                    yield
                    server.start()

                half = Half("PostgreSQL", Path(temporary), place, server.url)
                half.run(seconds, "database restarted", restarted, quick=quick)
                return half
        except _environments.NotRunError as error:
            print(f"not run on PostgreSQL: {error}")
            return None


class Half:
    """A service under load over one state."""

    def __init__(self, name: str, folder: Path, place: Path, state: str) -> None:
        self.name, self._folder, self._place, self._state = name, folder, place, state
        self._student = _models.student(folder / "student")
        self._other = _models.student(folder / "other")
        self._clock = folder / "clock"
        self._clock.write_text("0")
        self._port = 0
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        held = State(state)
        self._key, self._phone = (
            made(held, tenant=tenant, scopes=("predict", "adapt", "learn"))[1] for tenant in ("kitchen", "phone")
        )
        held.close()
        self.labels: dict[str, str] = {}
        """What was acknowledged: the event, and its label."""
        self.versions: list[str] = []
        self.asked: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.troubles: list[tuple[float, float]] = []
        """From when to when something was wrong."""
        self.failures: list[tuple[float, float, str]] = []
        """When a request that failed began and ended, and how."""
        self.memory: list[tuple[float, float]] = []
        """Seconds, and MiB of all processes while all are there."""
        self.lost = self.wrong = self.lost_versions = self.behind = 0

    # -- what happens

    def run(self, seconds: float, trouble: str, cause: Callable[[], Any] | None, *, quick: bool) -> None:
        """Load it for so many seconds, in which things happen; then count what is there."""
        every = 20.0 if quick else 60.0
        clients = [self._label] * LEARNING + [self._ask_and_label] * ASKING + [self._adapt, self._other_model]
        threads = [threading.Thread(target=client, daemon=True) for client in clients]
        kinds, kills = itertools.cycle(KINDS), 0
        with contextlib.ExitStack() as stack:
            side = stack.enter_context(self._service())
            self._wait_until_it_answers()
            began = time.monotonic()
            for thread in threads:
                thread.start()
            due = {
                "kill": began + every / 2,
                "reload": began + 5,
                "trouble": began + 0.45 * seconds,
                "clock": began + 0.7 * seconds,
            }
            while (now := time.monotonic()) < began + seconds:
                what = min(due, key=lambda name: due[name])
                if due[what] > now:
                    self._sample(side)
                    time.sleep(min(SAMPLE_SECONDS, due[what] - now))
                elif what == "reload":
                    self._reload(side)
                    due[what] = now + RELOAD_SECONDS
                elif what == "kill":
                    side = self._kill(next(kinds), kills, side, stack)
                    due[what], kills = max(now, due[what] + every), kills + 1
                    self.say()
                elif what == "trouble":
                    if cause is not None:
                        self._trouble(trouble, cause)
                    due[what] = float("inf")
                else:
                    self._set_back()
                    due[what] = float("inf")
            self._over.set()
            for thread in threads:
                thread.join()
            self._count(side)
        self.say()

    @contextlib.contextmanager
    def _service(self) -> Generator[_sides.Side]:
        path = os.pathsep.join([str(Path(__file__).parent / "_clock"), os.environ.get("PYTHONPATH", "")])
        more = {"CLOCK_OFFSET": str(self._clock), "PYTHONPATH": path.rstrip(os.pathsep)}
        options = ["--workers", 2, "--every", 2, "--most-wait", 5, f"other={self._other}"]
        with _sides.mapsto(self._student, self._place, *options, state=self._state, more=more) as side:
            self._port = side.port
            yield side

    @contextlib.contextmanager
    def _during(self) -> Generator[None]:
        """Something is wrong from now until the service answers again."""
        began = time.monotonic()
        place = len(self.troubles)
        self.troubles.append((began, float("inf")))
        yield
        self._wait_until_it_answers()
        self.troubles[place] = (began, time.monotonic() + SETTLED)

    def _kill(self, kind: str, number: int, side: _sides.Side, stack: contextlib.ExitStack) -> _sides.Side:
        with self._during():
            if kind == "supervisor":
                side.process.kill()
                side.process.wait()
                ended(side)
                stack.pop_all().close()
                side = stack.enter_context(self._service())
                self.events[kind] += 1
            else:
                self.events[kind] += killed(side, kind, number // len(KINDS))
                time.sleep(1)
        return side

    def _trouble(self, name: str, cause: Callable[[], Any]) -> None:
        with self._during(), cause():
            before, end = len(self.failures), time.monotonic() + 90
            while (
                len(self.failures) == before and time.monotonic() < end
            ):  # what a log has room for goes on for a while
                time.sleep(0.5)
            self.events[name] += len(self.failures) > before
            time.sleep(10)

    def _set_back(self) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(f"-{BACK}")
        new.replace(self._clock)
        self.events["clock set back"] += 1

    def _reload(self, side: _sides.Side) -> None:
        """A new package for one of the models, which is loaded while requests for both go on."""
        manifest = self._other / "manifest.json"
        tree = json.loads(manifest.read_text())
        tree["parameters"] += 1
        new = manifest.with_suffix(".new")
        new.write_text(json.dumps(tree))
        new.replace(manifest)
        side.process.send_signal(signal.SIGHUP)
        self.events["reload"] += 1

    def _wait_until_it_answers(self) -> None:
        """Waits until both workers and the writer do, many times in a row."""
        good, end, statuses = 0, time.monotonic() + 600, list[int]()
        while good < 10 and time.monotonic() < end:
            body = {"label": "0", "idempotency_key": "probe", "inputs": [_input([0.0] * 784)]}
            statuses = [
                self._send("/v2/models/student/feedback", body, self._key)[0],
                self._infer("student", self._key)[0],
            ]
            good = good + 1 if statuses == [200, 200] else 0
            time.sleep(0.1)
        if good < 10:
            raise _environments.NotRunError(f"the service does not answer again: {statuses}")

    # -- who asks

    def _label(self) -> None:
        """Labels with their inputs, each sent again until it is acknowledged."""
        rng = random.Random(next(self._numbers))
        while not self._over.is_set():
            name, label = f"label-{next(self._numbers)}", rng.choice("0123")
            body = {"label": label, "idempotency_key": name, "inputs": [_input([rng.random() for _ in range(784)])]}
            status = 0
            while status != 200 and not self._over.is_set():
                status = self._counted("label", "/v2/models/student/feedback", body)[0]
                if status == 200:
                    self.labels[f"k/{name}"] = label
                else:
                    time.sleep(0.1)
            time.sleep(PAUSE)

    def _ask_and_label(self) -> None:
        """Answers, every second of which is labelled by its request id."""
        rng = random.Random(next(self._numbers))
        while not self._over.is_set():
            status, found = self._infer("student", self._key, rng, count=True)
            if status == 200 and rng.random() < 0.5:
                request, label = found["parameters"]["request_id"], rng.choice("0123")
                body = {"label": label, "request_id": request}
                if self._counted("label by request", "/v2/models/student/feedback", body)[0] == 200:
                    self.labels[f"{request}/0"] = label
            time.sleep(PAUSE)

    def _adapt(self) -> None:
        """Private versions, and answers of those that there are."""
        rng, due = random.Random(next(self._numbers)), 0.0
        while not self._over.is_set():
            if time.monotonic() >= due and len(self.versions) < 99:
                due = time.monotonic() + ADAPT_SECONDS
                rows = [[rng.random() for _ in range(784)] for _ in range(4)]
                body = {"inputs": [_input(*rows)], "parameters": {"labels": ["x", "y", "x", "y"]}}
                status, found = self._counted("adapt", "/v2/models/student/adapt", body, self._phone)
                if status == 200:
                    self.versions.append(found["model_version"])
            elif self.versions:
                self._infer("student", self._phone, rng, version=rng.choice(self.versions), count=True)
            time.sleep(5 * PAUSE)

    def _other_model(self) -> None:
        rng = random.Random(next(self._numbers))
        while not self._over.is_set():
            self._infer("other", self._key, rng, count=True)
            time.sleep(PAUSE)

    def _infer(
        self, model: str, key: str, rng: random.Random | None = None, *, version: str = "", count: bool = False
    ) -> tuple[int, Any]:
        row = [0.5] * 784 if rng is None else [rng.random() for _ in range(784)]
        path = f"/v2/models/{model}{f'/versions/{version}' if version else ''}/infer"
        body = {"inputs": [_input(row)]}
        if not count:
            return self._send(path, body, key)
        return self._counted("private version" if version else f"answer of {model}", path, body, key)

    def _counted(self, what: str, path: str, body: Any, key: str = "") -> tuple[int, Any]:
        began = time.monotonic()
        status, found = self._send(path, body, key or self._key)
        with self._lock:
            self.asked[what] += status == 200
            if status != 200 and not self._over.is_set():
                self.failures.append((began, time.monotonic(), f"{what}: {status} {found}"))
        return status, found

    def _send(self, path: str, body: Any, key: str) -> tuple[int, Any]:
        """The status and the answer; 0 where the connection broke."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=40)
        try:
            connection.request("POST", path, json.dumps(body), {"authorization": f"Bearer {key}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return 0, type(error).__name__
        finally:
            connection.close()

    # -- what came of it

    def _sample(self, side: _sides.Side) -> None:
        """Memory, where nothing is wrong and every process has been there for a while."""
        if self.troubles and time.monotonic() < self.troubles[-1][1] + 5:
            return
        with contextlib.suppress(psutil.Error):
            self.memory.append((time.monotonic(), sum(each.memory_info().rss for each in side.processes()) / 2**20))

    def _count(self, side: _sides.Side) -> None:
        held = State(self._state)
        end = time.monotonic() + 120
        while self._behind(held) and time.monotonic() < end:
            time.sleep(0.5)
        self.behind = self._behind(held)
        stored: list[tuple[str, str]] = []
        after = 0
        while rows := held.feedback("student", after=after, most=1000):
            stored += [(row.event, row.label) for row in rows]
            after = rows[-1].position
        there = dict(stored)
        self.lost = len(set(self.labels) - set(there))
        self.wrong = (
            len(stored) - len(there) + sum(there.get(event, label) != label for event, label in self.labels.items())
        )
        self.lost_versions = len(set(self.versions) - held.known("student", self.versions))
        held.close()
        print(
            f"{self.name}: lost {self.lost}, wrong {self.wrong}, versions lost {self.lost_versions}, behind {self.behind}"
        )
        self.failed = sum(self._unexplained(*failure[:2]) for failure in self.failures)
        for began, over, what in self.failures:
            if self._unexplained(began, over):
                print(f"  failed while nothing was wrong: {what}")

    def _behind(self, held: State) -> int:
        status = held.learner_status("student")
        return held.behind("student", 0 if status is None else status[0])[0]

    def _unexplained(self, began: float, over: float) -> bool:
        return not any(start <= over and began <= end for start, end in self.troubles)

    def kills(self) -> int:
        return sum(self.events[kind] for kind in KINDS)

    def growth(self) -> float:
        """Of memory, in % of the median, by the line through the samples after the first quarter (Theil-Sen)."""
        own = np.array(self.memory[len(self.memory) // 4 :])
        if len(own) < 3:
            return float("nan")
        first, second = np.triu_indices(len(own), 1)
        slope = np.median((own[second, 1] - own[first, 1]) / (own[second, 0] - own[first, 0]))
        return float(100 * slope * (own[-1, 0] - own[0, 0]) / np.median(own[:, 1]))

    def row(self) -> dict[str, Any]:
        memory = [size for _, size in self.memory]
        events = {name.replace("_", " "): self.events[name] for name in (*KINDS, "reload")}
        once = [name for name in ("disk full", "database restarted", "clock set back") if self.events[name]]
        return {
            "half": self.name,
            **events,
            "once": ", ".join(once),
            "answers": sum(number for what, number in self.asked.items() if "answer" in what or "private" in what),
            "labels acknowledged": len(self.labels),
            "versions": len(self.versions),
            "failed during troubles": len(self.failures) - self.failed,
            "troubles, s": round(sum(end - start for start, end in self.troubles)),
            "memory, MiB": round(statistics.median(memory)) if memory else None,
            "growth, %": round(self.growth(), 2),
        }

    def say(self) -> None:
        print(f"{self.name}: {dict(self.events)} {dict(self.asked)} {len(self.labels)} labels", flush=True)
        if self.memory:
            print(
                f"  {self.memory[-1][1]:.0f} MiB, {len(self.failures)} failures, the last {self.failures[-1:]}",
                flush=True,
            )


def _input(*rows: list[float]) -> dict[str, Any]:
    data = [round(value, 2) for row in rows for value in row]
    return {"name": "input", "shape": [len(rows), 1, 28, 28], "datatype": "FP32", "data": data}


@contextlib.contextmanager
def disk(place: Path) -> Generator[Path]:
    """A small disk of its own, or a folder where none may be mounted."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place], check=False, capture_output=True
    )
    try:
        yield place
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", place], check=True)


@contextlib.contextmanager
def full(place: Path) -> Generator[None]:
    """A disk on which nothing is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * (1 << 16))
    yield
    ballast.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    main(given.quick, minutes=given.minutes)
