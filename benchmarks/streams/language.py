"""A language model on a text that changes: Shakespeare, the Republic, other Shakespeare; beside its parts, a frozen one and compressors.

mapsto bench language
mapsto bench language --seeds 0
mapsto bench language --only whole

`online.language` foretells each byte before it learns it. Every row is of the same three parts. What a run came to is kept in
``benchmarks/results/trials/language.json``, and the same command goes on there. Settings were chosen on Shakespeare from byte 700,000 on
and on the Republic from byte 900,000 on, of which nothing is reported. `steady` is the last 100 kB of a part: a text that is new is learnt
all the while, and its parts are not equally hard, so that the bits after the change are also held beside those of a model that had read
other ranges of both texts before, for the same bytes.
"""

from __future__ import annotations

import bz2
import json
import lzma
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import common
import numpy as np
from _environments import NotRunError, python_of
from _own_worker import Nothing

from mapsto import streams
from mapsto.context import Context
from mapsto.data.io.download import locate
from mapsto.kinds import Model
from mapsto.mappings.online.language import Language
from mapsto.nn.online.learning import Answers
from mapsto.report.build import t95

SHAKESPEARE, REPUBLIC = "text/language/shakespeare.txt", "text/language/republic.txt"
PARTS = ((SHAKESPEARE, 0, 400_000), (REPUBLIC, 600_000, 900_000), (SHAKESPEARE, 400_000, 700_000))
NAMES = ("Shakespeare", "Republic", "Shakespeare again")
BEFORE = ((SHAKESPEARE, 700_000, 1_000_000), (REPUBLIC, 900_000, 1_190_000))
"""Other ranges of both texts, for a model that knows both when it begins."""
QUICK_BEFORE = ((SHAKESPEARE, 700_000, 704_000), (REPUBLIC, 900_000, 904_000))
QUICK = ((SHAKESPEARE, 0, 6000), (REPUBLIC, 600_000, 604_000), (SHAKESPEARE, 400_000, 404_000))
PIECE = 1000
"""Bytes that are counted together."""
WINDOW, STEADY = 20_000, 100_000
SEEDS = range(3)
WHOLE, FROZEN, KNOWN = "whole", "frozen after the first part", "whole, from a model of both texts"
LATER: dict[str, dict[str, Any]] = {
    FROZEN: {"frozen": True},
    "network frozen after the first part": {"update": "none"},
    "adapters after the first part": {"update": "adapters"},
}
"""Rows that go on from the model of the first part → the fields that then are others."""
SMALL = {"hidden": 16, "table_bits": 12, "memory": 20_000, "rate": 0.01}
Bits = dict[str, Any]
"""Of a run: the bits of each `PIECE` by the whole and by its parts, and the seconds of the processor that it took."""


def main(quick: bool = False, only: str = "", seeds: Sequence[int] = ()) -> dict[str, Any]:
    parts = QUICK if quick else PARTS
    piece, window, steady = (100, 1000, 2000) if quick else (PIECE, WINDOW, STEADY)
    small = SMALL if quick else {}
    file = common.RESULTS / "trials" / "language.json"
    setting = json.dumps([parts, {name: str(value) for name, value in defaults().items()}, Language.version])
    kept: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() and not quick else {}
    if kept.get("setting") != setting:
        kept = {"setting": setting}

    def measured(name: str, run: Callable[[], Any]) -> None:
        if name in kept or only not in name:
            return
        kept[name] = run()
        print(name, "done", flush=True)
        if not quick:
            file.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")

    @cache
    def first() -> tuple[Bits, Model]:
        return learnt(None, parts[:1], piece, **small)

    def later(fields: Mapping[str, Any]) -> Bits:
        before, model = first()
        return joined(before, learnt(model, parts[1:], piece, **small, **fields)[0])

    def whole_of(seed: int) -> None:
        run = (lambda: later({})) if seed == 0 else (lambda: learnt(None, parts, piece, seed=seed, **small)[0])
        measured(f"{WHOLE}, seed {seed}", run)  # of seed 0 the model of the first part is gone on with by other rows

    first_seed, *others = seeds or (SEEDS[:1] if quick else SEEDS)
    whole_of(first_seed)

    def known() -> Bits:
        _, model = learnt(None, QUICK_BEFORE if quick else BEFORE, piece, **small)
        return learnt(model, parts, piece, **small)[0]

    measured("without replay", lambda: learnt(None, parts, piece, replay=0, **small)[0])
    for name, fields in LATER.items():
        measured(name, lambda fields=fields: later(fields))
    measured(KNOWN, known)
    for name, packed in (("zlib", zlib_size), ("bz2", bz2_size), ("lzma", lzma_size), ("PPMd", ppmd_size)):
        measured(name, lambda packed=packed: compressed(parts, packed, quick=quick))

    for seed in others:
        whole_of(seed)
    whole = [kept[name] for name in kept if name.startswith(f"{WHOLE}, seed")]
    rows = [row_of(WHOLE, [each["bits"] for each in whole], whole, parts, piece, window, steady)]
    for name, part in (("n-gram alone", "n-gram alone"), ("network alone", "network alone")):
        rows.append(row_of(name, [each[part] for each in whole], [], parts, piece, window, steady))
    for name in (KNOWN, "without replay", *LATER):
        of = [kept[name]] if name in kept else []
        rows.append(row_of(name, [each["bits"] for each in of], of, parts, piece, window, steady))
    peers = [peer_row(name, kept.get(name)) for name in ("zlib", "bz2", "lzma", "PPMd")]
    tree = common.result(
        "language",
        conditions={
            "parts": [
                f"{name}: {file} {start} to {stop}" for name, (file, start, stop) in zip(NAMES, parts, strict=True)
            ],
            "steady": f"the last {steady:,} bytes of a part",
            "after a change": f"bytes {window:,} to {2 * window:,} of a part",
            "settings chosen on": "shakespeare.txt from byte 700,000 on, republic.txt from byte 900,000 on",
            "model of both texts": [
                f"{file}: {start} to {stop}" for file, start, stop in (QUICK_BEFORE if quick else BEFORE)
            ],
            "compressors": "a part after those before it: what all take together, less what those before take",
            "quick": quick,
        },
        rows=[*rows, *peers],
        targets=targets_of({row["text model"]: row for row in rows}),
    )
    return common.finished(tree, quick=quick)


def defaults() -> dict[str, Any]:
    known: Mapping[str, Any] = Language.__pydantic_fields__  # type: ignore[attr-defined]
    return {name: info.default for name, info in known.items() if name not in ("stream", *Language.record_fields)}


# ------------------------------------------------------------------------------------------------------------------ runs


def learnt(
    before: Model | None, parts: Sequence[tuple[str, int, int]], piece: int, **fields: Any
) -> tuple[Bits, Model]:
    """Learn parts of texts in turn, each byte foretold before it is learnt."""
    mapping = Language(stream=Nothing(), **fields)
    live = mapping.open(before, None, Context())
    learner: Any = live.result().open()
    text = streams.bytes(files=tuple(each[0] for each in parts), ranges=tuple(each[1:] for each in parts))
    found: dict[str, list[float]] = {"bits": [], "n-gram alone": [], "network alone": []}
    seconds = 0.0

    def answered(answers: Answers) -> None:
        places = np.arange(len(answers.labels))
        found["bits"].extend((-np.log2(answers.scores[places, answers.labels])).tolist())
        for name, p in (answers.parts or {}).items():
            found[name].extend((-np.log2(p)).tolist())

    for block in text.open():
        began = time.process_time()
        learner.learn(block, answered)
        seconds += time.process_time() - began
    sums = {name: np.reshape(values, (-1, piece)).sum(1).round(3).tolist() for name, values in found.items() if values}
    count = len(found["bits"])
    model = Model(
        learner="online.language",
        version=Language.version,
        fields=mapping.own_fields(),
        signature=learner.signature,
        arrays=learner.arrays(),
        values=learner.values(),
        events=count,
        position=None,
    )
    return {**sums, "seconds": seconds, "bytes": count}, model


def joined(first: Bits, second: Bits) -> Bits:
    """Two runs as one, with the time of the later one."""
    names = ("bits", "n-gram alone", "network alone")
    return {
        **{name: first[name] + second[name] for name in names},
        "seconds": second["seconds"],
        "bytes": second["bytes"],
    }


# ------------------------------------------------------------------------------------------------------------------ figures


def row_of(
    name: str,
    runs: Sequence[Sequence[float]],
    timed: Sequence[Bits],
    parts: Sequence[tuple[str, int, int]],
    piece: int,
    window: int,
    steady: int,
) -> dict[str, Any]:
    """A model's figures, means over seeds."""
    if not runs:
        return {"text model": name, "all": "not run"}
    edges = np.cumsum([0, *(stop - start for _, start, stop in parts)]).tolist()

    def bits(run: Sequence[float], start: int, stop: int) -> float:
        return float(np.sum(run[start // piece : stop // piece])) / (stop - start)

    def figures(run: Sequence[float]) -> dict[str, float]:
        found = {"all": bits(run, 0, edges[-1])}
        found |= {NAMES[n]: bits(run, edges[n], edges[n + 1]) for n in range(3)}
        still = [bits(run, edges[n + 1] - steady, edges[n + 1]) for n in range(3)]
        found |= {f"{NAMES[n]}, steady": still[n] for n in range(3)}
        after = [bits(run, edges[n] + window, edges[n] + 2 * window) for n in (1, 2)]
        found["% over steady after the change"] = 100 * (after[0] / still[1] - 1)
        found["% over steady after the return"] = 100 * (after[1] / still[2] - 1)
        found["% over before leaving, first bytes"] = 100 * (bits(run, edges[2], edges[2] + window) / still[0] - 1)
        found["% over before leaving, steady"] = 100 * (still[2] / still[0] - 1)
        found["after the change"], found["after the return"] = after
        found["after the first part"] = bits(run, edges[1], edges[3])
        return found

    each = [figures(run) for run in runs]
    row: dict[str, Any] = {"text model": name, **{key: statistics.mean(one[key] for one in each) for key in each[0]}}
    if len(each) > 1:
        row["ci95 over seeds"] = t95([one["all"] for one in each])
    if timed:
        row["kB/s"] = statistics.median(one["bytes"] / one["seconds"] / 1000 for one in timed)
    return row | {"seeds": len(runs)}


def targets_of(rows: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    whole = rows[WHOLE]

    def below(other: str, key: str) -> float | None:
        own, its = whole.get(key), rows[other].get(key)
        return None if not isinstance(own, float) or not isinstance(its, float) else 100 * (1 - own / its)

    known = rows[KNOWN]
    same = below(KNOWN, "after the change")
    return [
        common.target(
            "20 kB after the change: % more bits than steady", "<= 5", whole.get("% over steady after the change")
        ),
        common.target(
            "20 kB after the change: % more bits than a model that knew both texts, for the same bytes",
            "<= 5",
            None if same is None else -same,
        ),
        common.target(
            "20 kB after the change, from a model of both texts: % more bits than steady",
            "<= 5",
            known.get("% over steady after the change"),
        ),
        common.target(
            "20 kB after the return: % more bits than steady", "<= 5", whole.get("% over steady after the return")
        ),
        common.target(
            "first 20 kB of the return: % more bits than before leaving",
            "<= 5",
            whole.get("% over before leaving, first bytes"),
        ),
        common.target(
            "the return, steady: % more bits than before leaving", "<= 5", whole.get("% over before leaving, steady")
        ),
        common.target("after the first part: % fewer bits than frozen", "> 0", below(FROZEN, "after the first part")),
        common.target("all: % fewer bits than the n-gram alone", "> 0", below("n-gram alone", "all")),
        common.target("kB a second on one core", ">= 2", whole.get("kB/s")),
    ]


# ------------------------------------------------------------------------------------------------------------------ compressors


def compressed(
    parts: Sequence[tuple[str, int, int]], size: Callable[[bytes, bool], int], *, quick: bool
) -> dict[str, float] | str:
    """Bits per byte of each part after those before it, and of all."""
    texts = [locate(file, what="the text").read_bytes()[start:stop] for file, start, stop in parts]
    try:
        sizes = [0, *(size(b"".join(texts[: n + 1]), quick) for n in range(3))]
    except NotRunError as error:
        return f"not run: {error}"
    found = {
        name: 8 * (sizes[n + 1] - sizes[n]) / len(text) for n, (name, text) in enumerate(zip(NAMES, texts, strict=True))
    }
    return {"all": 8 * sizes[-1] / sum(map(len, texts)), **found}


def peer_row(name: str, found: Any) -> dict[str, Any]:
    return {"text model": name, **(found if isinstance(found, dict) else {"all": found or "not run"})}


def zlib_size(text: bytes, quick: bool) -> int:
    return len(zlib.compress(text, 9))


def bz2_size(text: bytes, quick: bool) -> int:
    return len(bz2.compress(text, 9))


def lzma_size(text: bytes, quick: bool) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def ppmd_size(text: bytes, quick: bool) -> int:
    """PPMd of order 6 in 64 MB, in an environment of its own. Raises `NotRunError`."""
    if quick:
        raise NotRunError("small settings install nothing")
    code = "import sys, pyppmd; print(len(pyppmd.compress(sys.stdin.buffer.read(), max_order=6, mem_size=1 << 26)))"
    done = subprocess.run([python_of("ppmd"), "-c", code], input=text, capture_output=True, check=False)
    if done.returncode:
        raise NotRunError(done.stderr.decode()[-200:])
    return int(done.stdout)


if __name__ == "__main__":
    main()
