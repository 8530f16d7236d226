"""Learners that are trained on episodes of texts: over the whole encoder, its head, and adapters of low rank."""

from __future__ import annotations

import csv
import random
from typing import Any

import pytest

from mapsto import adapt, datasets, evaluate, meta
from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.mappings.networks.hf_text import HfText
from tests.text.tiny_encoder import tiny_encoder

WORDS = {
    "card": "card bank pay money",
    "fruit": "apple pear eat fruit",
    "colour": "red green blue",
    "lost": "lost help where",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return HfText(folder=str(tiny_encoder(tmp_path_factory.mktemp("encoder"))), length=12)()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    drawn, filling = random.Random(0), ["the", "a", "my", "is", "it", "please"]
    rows = [
        (" ".join([*drawn.sample(filling, 3), *drawn.sample(words.split(), 2)]), intent)
        for intent, words in WORDS.items()
        for _ in range(8)
    ]
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "intent"), *rows])
    data = datasets.text(file=str(path), target="intent", repeated="keep")
    return datasets.episodes(data=data, ways=3, shots=2, queries=2)


@pytest.mark.parametrize("name", ["protonet", "anil", "maml", "maml over adapters"])
def test_learners_take_episodes_of_texts(encoder: Network, tasks: Any, name: str) -> None:
    ctx = Context()
    network, made = (
        encoder,
        {
            "protonet": lambda: meta.protonet(tasks=tasks, steps=3),
            "anil": lambda: meta.anil(tasks=tasks, steps=3, head="zero"),
            "maml": lambda: meta.maml(tasks=tasks, steps=2, inner_steps=1, head="zero"),
            "maml over adapters": lambda: meta.maml(
                tasks=tasks, steps=2, inner_steps=1, head="zero", adapts="adapters"
            ),
        }[name],
    )
    if name == "maml over adapters":
        network = ctx.apply(adapt.lora(rank=2), encoder)
        assert any(name.endswith("lora_a") for name in network.tensors)
    learner = ctx.apply(made(), network)
    accuracy = ctx.report(evaluate.episodes(tasks=tasks, episodes=10), learner).metrics["accuracy"].value
    assert accuracy >= 100 / 3
