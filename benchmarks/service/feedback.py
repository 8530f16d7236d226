"""How many labels a second are acknowledged over HTTP, beside what the same file takes by itself.

mapsto bench feedback

64 connections give labels for answers by request id, one a request or 16, and each waits until its own are stored. Beside it the same rows
go into a table of the same columns, keys and settings of SQLite in the same folder, 64 a transaction, from one process that does nothing
else. Rounds are in turn.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import _models
import _sides
import common
import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from mapsto.service.state import tables

CONNECTIONS = 64
MOST = 9600
"""Labels of a round: what a worker keeps answers for."""
SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    rounds, seconds = (1, 0.5) if quick else (3, 2.0)
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = _models.student(folder / "student")
        for durability in SYNCHRONOUS:
            if only not in durability:
                continue
            with _sides.mapsto(package, folder / durability, "--durability", durability) as side:
                found: dict[str, list[float]] = {"raw": [], "1": [], "16": []}
                for number in range(rounds):
                    found["raw"].append(raw(folder / f"raw-{durability}-{number}.sqlite", durability, seconds))
                    for size in (1, 16):
                        found[str(size)].append(acknowledged(side, size, seconds))
                    print(durability, {name: round(each[-1]) for name, each in found.items()}, flush=True)
            base = found["raw"]
            for name, what in (("raw", "raw group commits"), ("1", "a label a request"), ("16", "16 labels a request")):
                shares = [a / b for a, b in zip(found[name], base, strict=True)]
                rows.append(
                    {
                        "side": f"{durability}: {what}",
                        "labels a second": statistics.median(found[name]),
                        "% of raw": 100 * statistics.median(shares),
                        "low": 100 * min(shares),
                        "high": 100 * max(shares),
                        "rounds": rounds,
                    }
                )
                if name != "raw":
                    share = 100 * statistics.median(shares)
                    targets.append(common.target(f"{durability}, {what}: % of raw group commits", ">= 50", share))
    tree = common.result(
        "feedback",
        conditions={
            "connections": CONNECTIONS,
            "seconds a round": seconds,
            "rows of a raw transaction": CONNECTIONS,
            "workers": 1,
            "quick": quick,
        },
        rows=rows,
        targets=targets,
    )
    return common.finished(tree, quick=quick)


def acknowledged(side: _sides.Side, size: int, seconds: float) -> float:
    """Labels a second, new ones alone, so many a request."""
    names = answered(side)
    labels = [{"request_id": name, "row": row, "label": str(row % 10)} for name in names for row in range(64)]
    bodies = [labels[start : start + size] for start in range(0, len(labels), size)]
    path = "/v2/models/student/feedback"
    requests = [
        side.request(json.dumps(each[0] if size == 1 else {"feedback": each}).encode(), path=path) for each in bodies
    ]
    found = _sides.load(side, requests, connections=CONNECTIONS, seconds=seconds, most=len(requests))
    if set(found["statuses"]) != {"200"}:
        raise RuntimeError(f"feedback was answered with {found['statuses']}")
    return found["answered"] * size / found["seconds"]


def answered(side: _sides.Side) -> list[str]:
    """Ids of answers of 64 rows each."""
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=60)
    data = np.random.default_rng(0).random(64 * 784).round(3).tolist()
    item = {"name": "input", "shape": [64, 1, 28, 28], "datatype": "FP32", "data": data}
    body = json.dumps({"inputs": [item]}).encode()
    found: list[str] = []
    for _ in range(MOST // 64):
        connection.request("POST", side.path, body, {"authorization": f"Bearer {side.key}"})
        found.append(json.loads(connection.getresponse().read())["parameters"]["request_id"])
    connection.close()
    return found


def raw(path: Path, durability: str, seconds: float) -> float:
    """Rows a second into a file by itself."""
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("pragma journal_mode=wal")
    held.execute(f"pragma synchronous={SYNCHRONOUS[durability]}")
    table = tables.tables["feedback"]
    dialect: Any = sqlite.dialect()
    held.execute(str(sa.schema.CreateTable(table).compile(dialect=dialect)))
    held.execute("create index by_model on feedback (model, position)")
    features = np.zeros(48, np.float32).tobytes()
    columns = "model, event, tenant, time, version, label, answer, features, package"
    insert = f"insert into feedback ({columns}) values (?,?,?,?,?,?,?,?,?)"
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        held.execute("begin immediate")
        for _ in range(CONNECTIONS):
            row = ("student", f"{count:028x}/0", "default", time.time(), "1", "3", "4", features, "f" * 64)
            held.execute(insert, row)
            count += 1
        held.execute("commit")
    seconds = time.perf_counter() - began
    held.close()
    return count / seconds
