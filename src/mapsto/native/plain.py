"""The learner of tables as plain C++ behind a C interface: its sources, how they are compiled, and in which forms they are prebuilt.

It imports nothing of mapsto: the build of a wheel reads it too.
"""

from pathlib import Path

__all__ = ["FLAGS", "SOURCES", "VARIANTS"]

SOURCES = (
    Path(__file__).parent / "csrc" / "tabular_learner.cpp",
    *sorted((Path(__file__).parent / "csrc" / "online").glob("*.h")),
)
FLAGS = (
    *("-std=c++20", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    *("-fPIC", "-fvisibility=hidden"),
)
"""None lets the compiler reorder or contract what is rounded: all processors of a family give the same bits."""
VARIANTS: dict[str, tuple[tuple[str, frozenset[str]], ...]] = {
    "x86_64": (
        ("x86-64-v3", frozenset(("avx2", "bmi2", "fma", "movbe", "f16c"))),
        ("x86-64-v2", frozenset(("sse4_2", "popcnt"))),
    ),
    "aarch64": (("armv8-a", frozenset()),),
    "arm64": (("armv8-a", frozenset()),),
}
"""By machine: what ``-march`` names, best first, and the flags of the processor that it needs."""
