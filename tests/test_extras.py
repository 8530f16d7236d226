"""What is optional is not needed: training runs without Lightning's Trainer, torchmetrics and TensorBoard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("lightning", "pytorch_lightning", "tensorboard", "torchmetrics"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
try:
    import mapsto.interop.lightning
except Exception as error:
    sys.stdout.write(f"{error}\\n")
from mapsto.cli.main import main
main()
"""


def test_a_training_runs_without_any_extra(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    words = ("run", "small.yaml", "--out", "out", "--store", "store", "--threads", "1")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "lightning is not installed; install it with: pip install 'mapsto[lightning]'" in done.stdout
    assert done.stderr.count("pip install 'mapsto[tensorboard]'") == 1, "said once, not for each training"
    logs = sorted((tmp_path / "out" / "logs").rglob("*.*"))
    assert [path.name for path in logs] == ["metrics.csv", "metrics.csv"]
    assert len(logs[1].read_text(encoding="utf-8").splitlines()) == 5
