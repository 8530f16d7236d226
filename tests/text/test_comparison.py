"""A network whose tokenizer was made smaller is compared with the one before it on the same texts, not on the same ids."""

from __future__ import annotations

from pathlib import Path

from mapsto import datasets
from mapsto.context import Context
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.networks.hf_text import HfText
from mapsto.mappings.prune.vocabulary import Vocabulary
from mapsto.nn.profile.comparison import compare
from tests.text.packages import write_table
from tests.text.tiny_encoder import tiny_encoder


def test_other_ids_of_the_same_texts_are_compared(tmp_path: Path) -> None:
    data = datasets.text(file=str(write_table(tmp_path / "intents.csv")), target="intent")
    ctx = Context()
    before = ctx.apply(Ridge(data=data), HfText(folder=str(tiny_encoder(tmp_path / "encoder")), length=24)())
    after = ctx.apply(Vocabulary(data=data), before)
    assert after.signature.preprocessing.tokenizer != before.signature.preprocessing.tokenizer
    with ctx.giving(after):
        found = compare(before, after, data, ctx, labelled=False)
    assert found["agreement"] == 100
