"""Online learners and augmentation as plain C++ behind C interfaces: sources, how they are compiled, and in which forms they are prebuilt.

It imports nothing of mapsto: the build of a wheel reads it too.
"""

from pathlib import Path

__all__ = ["FLAGS", "SOURCES", "VARIANTS"]

_CSRC = Path(__file__).parent / "csrc"
SOURCES: dict[str, tuple[Path, ...]] = {
    "tabular_learner": (_CSRC / "tabular_learner.cpp", *sorted((_CSRC / "online").glob("*.h"))),
    "softmax_learner": (
        _CSRC / "softmax_learner.cpp",
        *(_CSRC / "online" / name for name in ("elementary.h", "inputs.h", "linear.h", "state.h")),
    ),
    "select_learner": (_CSRC / "select_learner.cpp", _CSRC / "online" / "elementary.h"),
    "language_learner": (
        _CSRC / "language_learner.cpp",
        *sorted((_CSRC / "language").glob("*.h")),
        *(_CSRC / "online" / name for name in ("elementary.h", "state.h")),
    ),
    "json_numbers": (_CSRC / "json_numbers.cpp",),
    "image_steps": (_CSRC / "image_steps.cpp", *sorted((_CSRC / "images").glob("*.h"))),
}
"""By library: its source, and the headers that it includes. Libraries are apart, so that each is compiled only where it is used."""
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
