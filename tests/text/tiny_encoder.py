"""A tiny encoder with a WordPiece tokenizer, saved as transformers saves one: for tests that need no trained weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

__all__ = ["WORDS", "tiny_encoder", "tokenizer", "with_modules"]

_SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]"
_PLAIN = "the a my is where card money bank lost red green blue apple pear fruit eat like pay transfer please help it ? . , l o s t e r"
WORDS = f"{_SPECIAL} {_PLAIN} ##s ##ed ##ing".split()


def tokenizer(words: list[str] = WORDS) -> Any:
    """A WordPiece tokenizer of lower-cased words."""
    library = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(words)}
    made = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return made


def tiny_encoder(folder: Path, *, layers: int = 2, size: int = 16, seed: int = 0) -> Path:
    """The folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``."""
    transformers: Any = pytest.importorskip("transformers", reason="the extra text is not installed")
    config = transformers.AutoConfig.for_model(
        "bert",
        vocab_size=len(WORDS),
        hidden_size=size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * size,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Normalize"}]))
    return folder


def with_modules(folder: Path, *more: str, **pooling: Any) -> Path:
    """The folder as sentence-transformers saves one, with a pooling of this configuration, a norm, and these modules besides."""
    kinds = ("Transformer", "Pooling", "Normalize", *more)
    entries = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))
    return folder
