"""A folder whose decoded images are larger than what training on it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.imagenet_folder import imagenet

WORK = """
import json, resource, sys
from mapsto import datasets, evaluate, networks, prune, quantize, train

folder, kept = sys.argv[1:]
learn, check = (
    datasets.images(folder=folder, split=split, fit="crop", size=112, kept=kept) for split in ("train", "validation")
)
learn = datasets.subset(data=learn)
network = networks.conv4(data=learn, classes="data", width=2)(seed=0)
crop = {"flip": {}}, {"crop": {"padding": 8}}
trained = train.supervised(data=learn, epochs=1, batch_size=64, validation=check, augment=crop)(network)
small = prune.taylor(data=learn, batches=2, batch_size=32, macs=0.7)(trained)
int8 = quantize.static(data=learn, samples=64)(small)
right = evaluate.accuracy(data=check, batch_size=32, pictures=2)(int8)
samples = learn.open()
print(json.dumps({
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "array": int(samples.inputs.nbytes), "samples": len(samples),
    "accuracy": right.metrics["accuracy"].value,
}))
"""


def peak(folder: Path, kept: str, tmp_path: Path) -> dict[str, float]:
    work = tmp_path / "work.py"
    work.write_text(WORK, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(work), str(folder), kept], capture_output=True, text=True, check=False, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_training_takes_much_less_memory_than_the_decoded_images(tmp_path: Path) -> None:
    few = imagenet(tmp_path / "few", train=20, val=2, odd=False)
    many = imagenet(tmp_path / "many", train=20, val=2, odd=False)
    for folder in (many / "train").iterdir():  # files of other content, without the work of drawing them
        for file in list(folder.iterdir()):
            for copy in range(39):
                (folder / f"{copy}_{file.name}").write_bytes(file.read_bytes() + bytes([copy]))
    base, stored, array = (peak(*each, tmp_path) for each in ((few, "shards"), (many, "shards"), (many, "array")))
    assert stored["samples"] == 4800
    assert stored["accuracy"] == array["accuracy"]
    assert stored["peak"] - base["peak"] < 0.25 * stored["array"], (base, stored, array)
    assert array["peak"] - base["peak"] > 0.9 * array["array"], "so that the figures mean something"
