"""Attributions by gradients: they add up, agree where they must, and say where there are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.text.packages import write_table
from tests.text.tiny_encoder import tiny_encoder
from torch import nn

from mapsto import datasets, networks, quantize
from mapsto.errors import DomainError
from mapsto.kinds import Network, Preprocessing, trusting
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.networks.hf_text import HfText
from mapsto.nn.explain.attributions import Attributor
from mapsto_runtime.parts import Tokens, parts_of
from mapsto_runtime.signature import Column

pytest.importorskip("captum", reason="needs the extra explain")
DIGITS = datasets.subset(data=datasets.digits(size=8), per_class=2)


@pytest.fixture(scope="module")
def conv() -> Network:
    return networks.conv4(data=DIGITS, width=8, blocks=2, classes="data")(seed=0)


def test_integrated_gradients_add_up_to_what_hiding_everything_costs(conv):
    sample = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    parts = parts_of(sample[0], conv.signature)
    method = Attributor(conv, "integrated_gradients", steps=256)
    scores, pixels = method(sample, parts, 3)
    whole, hidden = (method.score(parts.without(np.full((1, 64), gone)), 3)[0] for gone in (False, True))
    assert scores.sum() == pytest.approx(whole - hidden, rel=0.02)
    np.testing.assert_allclose(pixels.ravel(), scores, rtol=1e-6, err_msg="a cell is a pixel here")


def test_of_a_linear_network_all_signed_methods_agree():
    """Up to SmoothGrad, whose noise a constant gradient does not feel."""
    with trusting("torch"):
        network = Network.from_module(nn.Linear(3, 2), torch.zeros(2, 3), classes=("no", "yes"))
        columns = (Column(name="a", mean=1.0, fill=(1.0,)), Column(name="b", type="words", categories=("x", "y")))
        before = Preprocessing(kind="none", columns=columns)
        network = dataclasses.replace(network, signature=dataclasses.replace(network.signature, preprocessing=before))
        sample = np.array([[0.7, 0.0, 1.0]], np.float32)
        parts = parts_of(sample[0], network.signature)
        found = [
            Attributor(network, method)(sample, parts, 1)[0]
            for method in ("occlusion", "integrated_gradients", "gradient_x_input", "smooth_grad")
        ]
        for each in found[1:]:
            np.testing.assert_allclose(each, found[0], rtol=1e-4)
        assert (Attributor(network, "saliency")(sample, parts, 1)[0] > 0).all()


@pytest.mark.slow
def test_of_texts_gradients_are_taken_at_the_embeddings(tmp_path):
    encoder = HfText(folder=str(tiny_encoder(tmp_path / "encoder")), length=12)()
    network = Ridge(data=datasets.text(file=str(write_table(tmp_path / "t.csv")), target="intent"))(encoder)
    from mapsto_runtime.preprocessing.texts import encoded

    text = "where is my card?"
    ids = encoded([text], network.signature.preprocessing, "x").ids
    words, tokens = (parts_of(ids[0], network.signature, text=given) for given in (text, ""))
    assert isinstance(tokens, Tokens)
    method = Attributor(network, "integrated_gradients", steps=64)
    by_word, by_token = (method(ids, parts, 0)[0] for parts in (words, tokens))
    assert by_word.sum() == pytest.approx(by_token.sum(), rel=1e-6)
    assert len(by_token) >= len(by_word) == 5
    assert np.ptp(by_word) > 0
    assert (Attributor(network, "saliency")(ids, words, 0)[0] > 0).all()
    assert tokens.without(np.ones((1, len(by_token)), bool)).shape == (1, ids.shape[1])
    with pytest.raises(DomainError, match="use integrated_gradients"):
        Attributor(network, "smooth_grad")


def test_a_quantized_network_has_no_gradients(conv):
    with pytest.raises(DomainError, match=r"has no gradients.*use occlusion"):
        Attributor(quantize.static(data=DIGITS)(conv), "saliency")
