"""Ten ways in which services of models failed elsewhere, and the tests by which this one is held to do better."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.packages import linear_package
from tests.service.in_process import started
from tests.service.served import serving

ROOT = Path(__file__).parents[2]
TESTS: dict[str, tuple[str, ...]] = {
    "a dead worker that nobody notices": (
        "tests/service/test_serve.py::test_what_was_acknowledged_outlives_kills_of_every_process",
        "tests/service/test_serve.py::test_all_processes_end_with_the_supervisor_and_so_does_the_key_of_the_run",
        "tests/service/test_metrics.py::test_what_a_killed_worker_counted_stays_in_the_sums",
    ),
    "ready without a model, or with one that is broken": (
        "tests/service/test_ready.py::test_a_model_that_answers_its_example_is_served",
        "tests/service/test_ready.py::test_one_that_answers_it_otherwise_is_not",
        "tests/service/test_serve.py::test_a_package_that_breaks_is_refused_by_name_and_the_old_one_goes_on",
    ),
    "a batch that one item kills": (
        "tests/service/test_batching.py::test_one_that_fails_costs_its_neighbours_nothing",
    ),
    "a batcher that works for requests that timed out": (
        "tests/service/test_batching.py::test_after_its_deadline_nothing_is_done_for_a_request",
        "tests/service/test_batching.py::test_one_whose_client_has_gone_is_not_run",
    ),
    "memory that grows with shapes, resets and disconnects": (
        "tests/service/test_hostile_clients.py::test_hostile_clients_leave_no_memory_behind",
        "tests/service/test_mutated_requests.py::test_very_many_wrong_requests_in_process",
        "tests/service/test_mutated_requests.py::test_very_many_wrong_requests_over_loopback",
        "tests/service/test_odd_requests.py::test_small_requests_cost_little_memory",
        "tests/service/test_bodies.py::test_all_that_are_not_whole_are_bounded_together",
    ),
    "broken input that kills, or is answered with 200": (
        "tests/service/test_mutated_requests.py::test_wrong_requests_in_process_are_refused_and_nothing_else",
        "tests/service/test_serve.py::test_what_is_wrong_is_said_in_the_protocols_form",
        "tests/service/test_inference_protocol.py::test_any_bytes_are_refused_and_nothing_else_happens",
        "tests/service/test_openapi.py::test_what_is_drawn_from_the_description_is_answered_as_described",
    ),
    "work that is lost when it ends or is scaled down": (
        "tests/service/test_serve.py::test_it_ends_with_0_and_what_was_begun_is_answered",
        "tests/service/test_jobs.py::test_jobs_outlive_kills_and_a_restart",
    ),
    "a reload that drops requests": (
        "tests/service/test_failures_of_others.py::test_a_reload_drops_no_request",
        "tests/service/test_operations.py::test_a_new_package_and_back",
    ),
    "code that a package or a request executes, and open ports for administrators": (
        "tests/service/test_failures_of_others.py::test_nothing_that_is_sent_or_loaded_is_executed",
        "tests/service/test_failures_of_others.py::test_a_service_listens_on_one_port_of_the_loopback",
        "tests/runtime/test_predict.py::test_a_manifest_that_cannot_be_trusted",
        "tests/runtime/test_manifests.py::test_weights_lie_only_in_files_of_the_manifest",
        "tests/service/test_who_may.py::test_every_route_has_a_decision",
    ),
    "labels of metrics from raw paths": (
        "tests/service/test_metrics.py::test_labels_are_bounded_whatever_clients_send",
    ),
}


def missing(name: str) -> bool:
    """Whether there is no test of that name, a file's and a function's."""
    file, _, function = name.partition("::")
    path = ROOT / file
    return (
        not path.is_file() or re.search(rf"^def {function}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is None
    )


def test_there_are_ten_and_each_has_its_tests() -> None:
    assert len(TESTS) == 10
    assert [name for names in TESTS.values() for name in names if missing(name)] == []


def test_the_page_on_security_names_tests_that_there_are() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    functions = set(re.findall(r"`(test_[a-z0-9_]+)`", page))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    there = {name for text in sources for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert len(functions) > 25
    assert sorted(functions - there) == []
    assert [file for file in sorted(files) if not (ROOT / file).is_file()] == []


def test_a_reload_drops_no_request(tmp_path: Path) -> None:
    """Requests go on while a new package, then one that is broken, then another is loaded."""
    with started(tmp_path) as service:
        key, manifest = service.key(), tmp_path / "signs" / "manifest.json"
        statuses: list[int] = []
        item = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
        over = asyncio.Event()

        async def asks() -> None:
            while not over.is_set():
                answer = await service.asked("/v2/models/signs/infer", {"inputs": [item]}, key=key)
                statuses.append(answer.status)
                await asyncio.sleep(0)

        async def reloads() -> list[str]:
            said: list[str] = []
            for number in range(6):
                tree = json.loads(manifest.read_text())
                whole = manifest.read_text()
                tree["parameters"] = number + 1
                manifest.write_text(json.dumps(tree) if number != 2 else "{")
                service.service.reload_soon()
                said += await asyncio.to_thread(service.service.reload)
                manifest.write_text(json.dumps(tree) if number != 2 else whole)
            over.set()
            return said

        async def both() -> list[str]:
            return (await asyncio.gather(asks(), asks(), reloads()))[2]

        said = service.run(both())
    assert sum("loaded again" in text for text in said) == 5
    assert sum("goes on as it was" in text for text in said) == 1
    assert len(statuses) > 10
    assert set(statuses) == {200}


_FORBIDDEN = {"eval", "exec", "compile", "__import__"}
_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jinja2", "yaml", "subprocess", "ctypes"}
_NEEDED = {"fitter.py": {"subprocess"}, "children.py": {"subprocess"}, "monitoring.py": {"yaml"}}
"""Two start processes of this program, with arguments of their own; one writes files for Prometheus."""


def test_nothing_that_is_sent_or_loaded_is_executed() -> None:
    """What a service runs of this program calls nothing that executes text or unpickles, and loads arrays without pickle."""
    found: list[str] = []
    for path in sorted((ROOT / "src/mapsto/service").glob("*.py")) + sorted((ROOT / "runtime/src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FORBIDDEN:
                found.append(f"{path.name}:{node.lineno} {node.func.id}")
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            bad = {name.partition(".")[0] for name in names} & _MODULES - _NEEDED.get(path.name, set())
            found += [f"{path.name}:{getattr(node, 'lineno', 0)} {name}" for name in sorted(bad)]
            pickles = [each for each in getattr(node, "keywords", ()) if each.arg == "allow_pickle"]
            found += [f"{path.name}: pickle" for each in pickles if getattr(each.value, "value", True) is not False]
    assert found == []


def _open_ports(number: int) -> set[tuple[str, int]]:
    process = psutil.Process(number)
    listening: set[tuple[str, int]] = set()
    for each in (process, *process.children(recursive=True)):
        held: list[Any] = each.net_connections(kind="inet")
        listening |= {(one.laddr.ip, one.laddr.port) for one in held if one.status == psutil.CONN_LISTEN}
    return listening


@pytest.mark.slow
def test_a_service_listens_on_one_port_of_the_loopback(tmp_path: Path) -> None:
    """Nor do its processes talk over anything else that others may reach: their socket is in a folder of this user alone."""
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    with serving(f"signs={tmp_path / 'signs'}", "--workers", 2, folder=tmp_path) as served:
        assert _open_ports(served.process.pid) == {("127.0.0.1", int(served.url.rpartition(":")[2]))}
        sockets = [
            Path(str(one.laddr))
            for each in psutil.Process(served.process.pid).children(recursive=True)
            for one in each.net_connections(kind="unix")
            if str(one.laddr).startswith("/")
        ]
        assert sockets
        assert {place.parent.stat().st_mode & 0o077 for place in sockets} == {0}
        for path in (
            "/docs",
            "/redoc",
            "/admin",
            "/debug",
            "/console",
            "/shutdown",
            "/v2/repository/index",
            "/dashboard",
        ):
            assert served.call(path)[0] == 404, path
