"""What a report shows of a memory of samples: how full it is, and what of each class it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mapsto.nn.online.trained.sample_memory import SampleMemory

__all__ = ["memory_tables"]

_MOST_CLASSES = 100


def memory_tables(memory: SampleMemory | None, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Two tables; none without a memory."""
    if memory is None:
        return []
    rows = [
        ["samples", f"{len(memory):,} of at most {memory.capacity:,}"],
        ["bytes", f"{memory.bytes:,} of at most {memory.most_bytes:,}"],
        ["samples met", f"{sum(memory.met):,}"],
    ]
    counts, met = memory.counts(), memory.met
    most = sorted(range(len(met)), key=lambda label: (-counts[label], label))[:_MOST_CLASSES]
    kept = [[classes[label], counts[label], met[label]] for label in most]
    return [
        {"title": "Memory of past samples", "columns": ["what", "held"], "rows": rows},
        {"title": "Memory by class", "columns": ["class", "samples held", "samples met"], "rows": kept},
    ]
