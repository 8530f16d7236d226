"""The Playground's files: all there, nothing of elsewhere, and the network of the page is one that the package's reader feeds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "_static" / "playground"
OWN = ("index.html", "playground.css", "playground.js", "drawing.js", "learning.js")
VENDORED = ("LICENSE", "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def test_files_are_there_and_name_nothing_elsewhere() -> None:
    for name in OWN:
        text = (FOLDER / name).read_text("utf-8")
        assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}/", text), name
        for there in re.findall(r"""(?:from|src=|href=)\s*['"](\.?/?[\w./-]+\.(?:m?js|css))['"]""", text):
            assert (FOLDER / there).is_file(), there
    for name in VENDORED:
        assert (FOLDER / "vendor" / name).stat().st_size < 12_000_000
    assert (FOLDER / "model.onnx").stat().st_size < 300_000


def test_the_network_tells_its_ten_drawings_apart() -> None:
    session = onnxruntime.InferenceSession(FOLDER / "model.onnx")
    given = json.loads((FOLDER / "ten_digits.json").read_text("utf-8"))
    pixels = np.array([one["pixels"] for one in given["examples"]], np.float32).reshape(-1, 1, 28, 28)
    features = session.run(None, {session.get_inputs()[0].name: (pixels / 255 - np.float32(0.1)) / np.float32(0.2)})[0]
    assert given["classes"] == [one["label"] for one in given["examples"]] == [str(digit) for digit in range(10)]
    assert features.ndim == 2
    assert np.isfinite(features).all()
    apart = np.linalg.norm(features[:, None] - features[None], axis=-1)
    assert apart[~np.eye(10, dtype=bool)].min() > 0.1 * apart.max()
