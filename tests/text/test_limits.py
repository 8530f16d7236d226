"""Small packages of texts: what is tried in turn, and how networks of different tokenizers are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mapsto.context import Context
from mapsto.errors import SpecError
from mapsto.kinds import Dataset, Network
from mapsto.mappings.prune.vocabulary import Vocabulary
from mapsto.nn.profile.comparison import compare
from mapsto.recipe.reader import parse_recipe
from mapsto.search.adapt import TEXT_WAYS, Examples, Small, adaptation_recipe
from mapsto.search.compress import compression_recipe, data_node, parse_limit
from tests.text.test_small_encoders import encoder, texts

__all__ = ["encoder", "texts"]


def test_networks_of_different_tokenizers_are_compared_on_the_same_texts(encoder: Network, texts: Dataset) -> None:
    ctx = Context()
    small = ctx.apply(Vocabulary(data=texts), encoder)
    with ctx.giving(small):
        figures = compare(encoder, small, texts, ctx, labelled=False)
    assert figures["agreement"] == pytest.approx(100)


@pytest.mark.parametrize("way", list(TEXT_WAYS))
def test_the_recipe_of_a_way_ends_with_a_head_of_its_own(way: Any, tmp_path: Path) -> None:
    file = {"text": {"file": str(tmp_path / "a.csv"), "target": "intent"}}
    text = adaptation_recipe(
        network={"networks.minilm": {}},
        examples=Examples(labelled=file, augment=False),
        title="small",
        small=Small(head="classifier", texts=way),
    )
    steps = [next(iter(step)) for step in yaml.safe_load(text)["steps"]]
    assert steps[2] == "prune.vocabulary"
    assert steps[-3:] == ["quantize.dynamic", "adapt.best", "export.onnx"]
    assert ("distill.static" in steps, "prune.blocks" in steps) == (way == "static", way == "layers")


def test_compress_tries_every_way_after_the_words(texts: Any) -> None:
    node = data_node(texts.file, "intent", columns=("text",))
    assert node["text"]["target"] == "intent"
    model = [{"networks.minilm": {}}, {"adapt.ridge": {"data": "$examples"}, "as": "adapted"}]
    text = compression_recipe(
        model=({"examples": node}, model),
        data=node,
        test=None,
        limits=(parse_limit("bytes=13M"),),
        shares=(0.5,),
        epochs=1,
    )
    parse_recipe(text)
    steps = yaml.safe_load(text)["steps"]
    assert steps[2]["as"] == "words"
    assert list(steps[3]["fork"]) == list(TEXT_WAYS)
    with pytest.raises(SpecError, match="target"):
        data_node(texts.file, columns=("text",))
