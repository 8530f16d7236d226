"""Requests drawn from the service's own OpenAPI by schemathesis, right ones and wrong ones: no 5xx, and answers are as they are described.

``MAPSTO_CASES`` is about how many are sent.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.packages import linear_package
from tests.service.in_process import started
from tests.service.served import serving

CASES = int(os.environ.get("MAPSTO_CASES", "1000"))
OPERATIONS = 18
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
    "ignored_auth",
)


def test_every_route_says_what_it_answers_and_what_an_error_is(tmp_path: Path) -> None:
    with started(tmp_path) as service:
        tree = service.ask("/openapi.json", key=service.key()).json()
    names = set(tree["components"]["schemas"])
    operations = [(path, operation) for path, ways in tree["paths"].items() for operation in ways.values()]
    assert len(operations) == OPERATIONS
    for path, operation in operations:
        assert operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
        assert "422" not in operation["responses"], path
        assert operation["security"] == ([] if "health" in path else [{"key": []}])
        if path not in ("/metrics", "/openapi.json", "/v2"):
            used = re.findall(r"#/components/schemas/(\w+)", str(operation["responses"]["200"]))
            assert len(used) == 1, path
            assert set(used) <= names


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_drawn_from_the_description_is_answered_as_described(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    linear_package(tmp_path / "signs", [[1.0, 0, 0], [-1, 0, 0]], ("low", "high"))
    with serving(f"signs={tmp_path / 'signs'}", "--admin", folder=tmp_path) as served:
        each = max(1, CASES // OPERATIONS)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json"]
        command += ["-H", f"Authorization: Bearer {served.key}", "--checks", ",".join(CHECKS), "--no-color"]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(each), "--seed", "1"]
        command += ["--request-timeout", "30", "--continue-on-failure", "--suppress-health-check", "all"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        sys.stderr.write(done.stdout[-4000:])
        assert served.call("/v2/health/ready")[0] == 200
    found = re.search(r"([\d,]+) generated", done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert found is not None
    assert int(found[1].replace(",", "")) >= CASES // 2
