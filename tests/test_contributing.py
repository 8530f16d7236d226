"""The example of CONTRIBUTING.md is a mapping that works."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from mapsto.errors import SpecError
from mapsto.kinds import Network, trusting

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    path = tmp_path / "smallest.py"
    path.write_text(code[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("smallest_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "smallest_example", module)
    spec.loader.exec_module(module)
    return module


def test_the_example_sets_the_smallest_weights_to_zero(example: ModuleType) -> None:
    with trusting("torch"):
        network = Network.from_module(nn.Linear(16, 4), torch.zeros(1, 16))
        before = network.tensors["weight"].clone()
        after = example.Smallest(share=0.25)(network).tensors["weight"]
    assert int((after == 0).sum()) == 16
    assert float(before[after == 0].abs().max()) < float(after[after != 0].abs().min())
    assert torch.equal(network.tensors["weight"], before)


def test_the_example_refuses_a_share_out_of_range(example: ModuleType) -> None:
    with pytest.raises(SpecError, match="share"):
        example.Smallest(share=2)
