"""Inputs made up for a network from its signature, where only shapes and times matter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mapsto.kinds import Network, Signature

__all__ = ["example_batch", "example_inputs", "reading_greys"]


def example_batch(network: Network, batch: int = 2) -> Tensor:
    """The network's first input: zeros or, of whole numbers, 0 and 1 in turn, since zeros alone may all be padding."""
    dtype: torch.dtype = getattr(torch, network.signature.inputs[0].dtype)
    shape = network.signature.input_shape(batch)
    if dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    return (torch.arange(math.prod(shape)) % 2).reshape(shape).to(dtype)


def example_inputs(signature: Signature, batch: int, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of the signature's shapes and types: standard normal floats, zeros for integers, texts of random tokens and lengths."""
    generator = torch.Generator().manual_seed(seed)
    if signature.preprocessing.kind == "text":
        return (_texts(signature, batch, generator),)
    found: list[Tensor] = []
    for spec in signature.inputs:
        shape = [batch if isinstance(size, str) else size for size in spec.shape]
        dtype: torch.dtype = getattr(torch, spec.dtype)
        floating = dtype.is_floating_point
        found.append(
            torch.randn(shape, generator=generator, dtype=dtype) if floating else torch.zeros(shape, dtype=dtype)
        )
    return tuple(found)


def _texts(signature: Signature, batch: int, generator: torch.Generator) -> Tensor:
    """Token ids of which every other text ends in padding, so that nothing is measured or traced without it."""
    from mapsto_runtime.preprocessing.texts import tokenizer_of

    read = signature.preprocessing
    shape = signature.input_shape(batch)
    most = tokenizer_of(read).get_vocab_size() if read.tokenizer_json else 2
    ids = torch.randint(0, most, shape, generator=generator)
    ids[1::2, ..., -(-shape[-1] // 2) :] = read.padding
    return ids


def reading_greys() -> Network:
    """A small encoder with a token for each grey of an image, as if that were a text; for doctests and the contract suite."""
    import dataclasses
    import json

    from mapsto import discovery
    from mapsto.kinds import Preprocessing
    from mapsto_runtime.preprocessing.texts import ASSET, digest

    source = discovery.find("mappings", "networks.hf_text")
    network = source(configuration={**source.contract["configuration"], "vocab_size": 256}, length=8)(seed=0)
    words = {"[PAD]": 0, "[UNK]": 1, **{f"grey{number}": number for number in range(2, 256)}}
    pieces = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 99,
    }
    tree = {"version": "1.0", "added_tokens": [], "model": {**pieces, "vocab": words}}
    tokenizer = json.dumps(tree).encode()
    read = Preprocessing(kind="text", tokenizer=digest(tokenizer), length=8, tokenizer_json=tokenizer)
    signature = dataclasses.replace(network.signature, preprocessing=read)
    return dataclasses.replace(network, signature=signature, assets={ASSET: tokenizer})
