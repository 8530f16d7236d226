"""What the tests of pruned parts share: a network run by a fresh process, and text as token ids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mapsto.kinds import Dataset, Network, Preprocessing, Samples
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import runner
from mapsto.nn.network.serialization import saved

_RUN = """
import sys
from pathlib import Path
import numpy, torch
from mapsto.nn.network.serialization import load
folder = Path(sys.argv[1])
module = load(folder).module()
with torch.no_grad():
    numpy.save(folder / "outputs.npy", module(torch.from_numpy(numpy.load(folder / "inputs.npy"))).numpy())
"""


def outputs(network: Network, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return network.module()(batch)


def elsewhere(network: Network, batch: Tensor, folder: Path) -> Tensor:
    """The outputs of the network as a fresh process finds it on disk."""
    for name, content in saved(network).items():
        (folder / name).write_bytes(content)
    np.save(folder / "inputs.npy", batch.numpy())
    subprocess.run([sys.executable, "-c", _RUN, str(folder)], check=True)
    return torch.from_numpy(np.load(folder / "outputs.npy"))


def in_onnx_runtime(network: Network, batch: Tensor) -> Tensor:
    return torch.from_numpy(runner(to_onnx(network))(batch.numpy()))


BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
}


class Sentences(Dataset):
    """Rows of token ids below `most`, padded with 0, of class 0 where token 7 is the first, else 1."""

    most: int = 20
    count: int = 48
    length: int = 8
    what: str = "ids"
    """Or ``floats``, which are no ids."""

    def fingerprint(self) -> str:
        return repr(self)

    def open(self) -> Samples:
        random = np.random.default_rng(0)
        ids = random.integers(5, self.most, (self.count, self.length))
        ids[:, -2:] = 0
        ids[::2, 0] = 7
        return Samples(
            inputs=ids.astype(np.float32) + 0.5 if self.what == "floats" else ids,
            labels=(ids[:, 0] != 7).astype(np.int64),
            classes=("seven", "other"),
            preprocessing=Preprocessing(kind="none"),
        )
