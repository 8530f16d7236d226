"""The Python of the page on the service works as it stands, against a service of photos."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from mapsto_runtime.signature import Preprocessing, Signature, TensorSpec
from tests.cli.packages import COLOURS, write_package
from tests.service.served import serving

PAGE = Path(__file__).parents[2] / "docs" / "service.md"


def photos_package(folder: Path) -> None:
    """It answers which of red, green and blue an image has most of; its features are how much of each."""
    signature = Signature(
        inputs=(TensorSpec(name="input", dtype="float32", shape=("N", 3, 8, 8)),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=("N", 3)),),
        preprocessing=Preprocessing(channels=3, size=(8, 8)),
        classes=COLOURS,
    )
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weight", "bias"], ["output"], transB=1),
    ]
    constants = (
        onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "weight"),
        onnx.numpy_helper.from_array(np.zeros(3, np.float32), "bias"),
    )
    write_package(folder, nodes, signature, constants)


@pytest.mark.slow
def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos_package(tmp_path / "demo")
    for name, colour in (("photo1", (200, 30, 10)), ("photo2", (10, 30, 200))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    with serving(tmp_path / "demo", "--learn", "none", "--grpc-port", 0, folder=tmp_path) as served:
        names = {"url": served.url, "key": served.key}
        for block in blocks:
            exec(compile(block.replace("127.0.0.1:8081", served.grpc), str(PAGE), "exec"), names)
    assert capsys.readouterr().out.splitlines() == ["('red',) 1", "[b'red'] 1", "('a cup',)"]
