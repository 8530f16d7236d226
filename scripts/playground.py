"""Files of the Playground from a run of the recipe `demo`: its int8 network without the head, and ten drawings of its package.

mapsto run demo --out runs/demo
python scripts/playground.py runs/demo
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx.utils import extract_model
from PIL import Image

FOLDER = Path(__file__).parents[1] / "docs" / "_static" / "playground"
MAX_BYTES = 300_000


def without_head(package: Path, out: Path) -> None:
    """The network of a package up to what its last layer, a Gemm, takes: features (N, D)."""
    last = onnx.load(package).graph.node[-1]
    if last.op_type != "Gemm":
        raise SystemExit(
            f"{package}: ends with {last.op_type}, not with the Gemm of a head; give a run of the recipe demo"
        )
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "features.onnx"
        extract_model(str(package), str(cut), ["input"], [last.input[0]])
        content = cut.read_bytes()
    if len(content) > MAX_BYTES:
        raise SystemExit(f"{package}: {len(content):,} bytes without its head, more than {MAX_BYTES:,}")
    out.write_bytes(content)


def drawings(package: Path) -> dict[str, object]:
    """The examples of a package as the Playground saves drawings: pixels 0 to 255, light ink, row by row."""
    files = sorted((package / "examples").glob("*.png"))
    examples = [{"label": file.stem, "pixels": np.asarray(Image.open(file)).reshape(-1).tolist()} for file in files]
    return {"format": "mapsto playground 1", "classes": [file.stem for file in files], "examples": examples}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the Playground's files from a run of the recipe demo.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where model.onnx and ten_digits.json go")
    given = parser.parse_args()
    package = given.run / "package"
    without_head(package / "model.onnx", given.out / "model.onnx")
    text = json.dumps(drawings(package), separators=(",", ":"))
    (given.out / "ten_digits.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
