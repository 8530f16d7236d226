"""The runner of a package: one file that answers with it where neither mapsto nor mapsto-runtime is installed.

It is put together of the parts in ``runners/``, of which each package gets those that it needs: what reads its inputs, what opens its
model, and where it holds a prototype or a ridge learner what makes a head of examples. ExecuTorch's is in C++, as that runtime is, and the
same in all packages. Nothing of mapsto runs any of them.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mapsto.nn.export.runners import (
    adapting,
    command,
    open_litert,
    open_onnxruntime,
    open_openvino,
    read_array,
    read_image,
    read_table,
    read_text,
)

if TYPE_CHECKING:
    from mapsto.kinds import Adaptation, Signature

__all__ = ["RUNNER", "head_rule", "runner_files"]

RUNNER = "run.py"
"""Its name in a package."""
_LINE = "# ---- below this line: part of the runner\n"
_OPEN = {"onnxruntime": open_onnxruntime, "openvino": open_openvino, "litert": open_litert}
_LIBRARIES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "litert": "ai-edge-litert"}
_READ = {"image": read_image, "table": read_table, "text": read_text, "array": read_array}
_MORE = {"image": ("pillow",), "text": ("tokenizers",)}
_WANTED = {"image": "photo.png", "table": "rows.csv", "text": "texts.txt", "array": "samples.npy"}
_TEXT = '''"""Answers with the package in this folder, without mapsto. It needs: pip install {needs}

    python {name} predict {wanted}             # a line of JSON for each sample: its class and scores
{adapting}
mapsto-runtime reads more kinds of files, and tells more of what is wrong with one. Change a copy of this file: the package's
manifest holds its hash.
"""
'''
_ADAPTING = """\
    python {name} adapt examples/              # examples/CLASS/FILE: new classes; predict answers with them from then on
"""
_IMPORTS = """
from __future__ import annotations

{modules}
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
"""


def head_rule(learner: Adaptation) -> dict[str, str | float] | None:
    """What the runner makes a head by, as in a manifest's ``adaptation.head``; None for a learner of another kind."""
    from mapsto.nn.meta.adaptation.centroid import is_cosine, scale_of

    if learner.method == "centroid":
        distance = "cosine" if is_cosine(learner.settings) else "euclidean"
        return {"method": "centroid", "scale": scale_of(learner.settings), "distance": distance}
    if learner.method == "ridge":
        numbers = {name: float(tensor) for name, tensor in learner.tensors.items()}
        penalty, scale = (math.exp(numbers[name]) for name in ("~log_penalty", "~log_scale"))
        return {"method": "ridge", "penalty": penalty, "scale": scale, "bias": numbers["~bias"]}
    return None


def runner_files(runtime: str, signature: Signature, *, adapts: bool = False) -> dict[str, bytes]:
    """The runner of a package: name → content; nothing for a runtime that has none.

    Parameters
    ----------
    runtime
        As in the manifest.
    signature
        The package's.
    adapts
        Whether the package holds a learner of which `head_rule` tells.
    """
    if runtime == "executorch":
        return {name: (Path(__file__).parent / "runners" / name).read_bytes() for name in ("run.cpp", "CMakeLists.txt")}
    if runtime not in _OPEN:
        return {}
    kind = signature.preprocessing.kind
    if kind == "none":
        kind = "table" if signature.preprocessing.columns else "array"
    parts = [_READ[kind], _OPEN[runtime], command, *([adapting] if adapts else [])]
    text = _TEXT.format(
        needs=" ".join(("numpy", _LIBRARIES[runtime], *_MORE.get(kind, ()))),
        name=RUNNER,
        wanted=_WANTED[kind],
        adapting=_ADAPTING.format(name=RUNNER) if adapts else "",
    )
    body = "\n\n".join(_below_line(part) for part in parts)
    modules = ("hashlib", *(("importlib",) if "importlib." in body else ()), "json", "sys")
    imports = _IMPORTS.format(modules="\n".join(f"import {module}" for module in modules))
    end = f'if __name__ == "__main__":\n    sys.exit(main({"adapt" if adapts else ""}))\n'
    return {RUNNER: f"{text}{imports}\n\n{body}\n\n{end}".encode()}


def _below_line(part: ModuleType) -> str:
    return Path(str(part.__file__)).read_text(encoding="utf-8").partition(_LINE)[2].lstrip("\n")
