"""A tiny encoder with fresh weights, a tokenizer of single letters and some labelled texts, for the contract of what needs them."""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import Any

from mapsto.kinds import Json, Network, Preprocessing

__all__ = ["contract_encoder", "contract_texts"]


def contract_texts() -> dict[str, Json]:
    """Twelve texts of three classes, as a recipe writes a data set."""
    return {"text": {"file": str(Path(__file__).parent / "contract_texts.csv"), "target": "intent"}}


@cache
def contract_encoder() -> Network:
    """Two layers of eight numbers. Raises `MissingExtra` without the extra `text`."""
    import torch

    from mapsto.errors import MissingExtra
    from mapsto.nn.network.build import network_of
    from mapsto_runtime.preprocessing.texts import ASSET, digest

    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    except ImportError as error:
        raise MissingExtra("tokenizers", "text", where="contract_encoder") from error
    letters = string.ascii_lowercase + string.digits
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    known = {word: number for number, word in enumerate(words)}
    made: Any = Tokenizer(models.WordPiece(known, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, known[name]) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer = str(made.to_str()).encode()
    config: dict[str, Json] = {
        "model_type": "bert",
        "vocab_size": len(words),
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    example = torch.ones(2, 8, dtype=torch.int64)
    example[1, 4:] = 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return network_of(
            "mapsto.nn.networks.hf:hf_text",
            {"config": config, "normalize": True, "classes": None},
            Preprocessing(kind="text", tokenizer=digest(tokenizer), length=16, padding=0, tokenizer_json=tokenizer),
            classes=None,
            assets={ASSET: tokenizer},
            example=example,
        )
