"""What is optional is not needed: training runs without Lightning's Trainer, torchmetrics and TensorBoard."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mapsto.errors import MissingExtra
from tests.command import mapsto

RECIPE = """\
schema: 1
name: small
data:
  few: {subset: {data: {digits: {size: 8}}, per_class: 2}}
steps:
  - networks.conv4: {data: $few, width: 4, blocks: 1}
  - train.supervised: {data: $few, epochs: 1, batch_size: 10}
  - train.supervised: {data: $few, epochs: 2, batch_size: 10}
"""
ABSENT = ("lightning", "pytorch_lightning", "tensorboard", "torchmetrics")
WORDS = ("run", "small.yaml", "--out", "out", "--store", "store", "--threads", "1")
IN_A_PROCESS = f"""
import sys

sys.modules |= dict.fromkeys({ABSENT!r})
from mapsto.cli.main import main
main()
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(RECIPE, encoding="utf-8")


def require_trained(said: str) -> None:
    assert said.count("no events for TensorBoard are written") == 1, "said once, not for each training"
    logs = sorted(path for path in Path("out/logs").rglob("*") if path.is_file())
    assert [path.name for path in logs] == ["metrics.csv", "metrics.csv"]
    assert len(logs[1].read_text(encoding="utf-8").splitlines()) == 5


@pytest.mark.slow
def test_a_training_runs_without_any_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ABSENT:
        monkeypatch.setitem(sys.modules, name, None)
    require_trained(mapsto(*WORDS, code=0).err)


@pytest.mark.slow
def test_a_training_runs_without_any_extra_from_the_first_import_on() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS, *WORDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    require_trained(" ".join(done.stderr.split()))


def test_the_callback_says_what_installs_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mapsto.interop.lightning", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lightning"] or ["lightning"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtra, match=r"lightning is not installed; install it with: pip install 'mapsto\[lightning\]'"
    ):
        importlib.import_module("mapsto.interop.lightning")
