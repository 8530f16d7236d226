"""`evaluate.attributions`: methods that point at what counts beat random orders, and what cannot be judged is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tests.mappings.evaluate.corner import Corner

from mapsto import datasets, evaluate, networks, quantize
from mapsto.context import Context
from mapsto.errors import DomainError
from mapsto.kinds import Dataset, Network, Preprocessing, Samples, trusting


class Spots(Dataset):
    """A bright spot in one of two corners of a noisy image."""

    def fingerprint(self) -> str:
        return "spots"

    def open(self) -> Samples:
        draw = np.random.default_rng(0)
        images = draw.integers(0, 40, (16, 1, 16, 16)).astype(np.uint8)
        images[::2, :, 2:6, 2:6] = 255
        images[1::2, :, 10:14, 10:14] = 255
        before = Preprocessing(channels=1, size=(16, 16))
        labels = np.arange(16) % 2
        return Samples(inputs=images, labels=labels[::-1].copy(), classes=("low", "high"), preprocessing=before)


@pytest.fixture
def corner():
    with trusting("tests"):
        before = Preprocessing(channels=1, size=(16, 16))
        yield Network.from_module(Corner(), torch.zeros(1, 1, 16, 16), classes=("low", "high"), preprocessing=before)


def test_what_points_at_the_spot_beats_random_orders(corner):
    pytest.importorskip("captum", reason="needs the extra explain")
    report = evaluate.attributions(data=Spots(), samples=8, pictures=1, hidden="mean")(corner)
    for method in ("occlusion", "integrated_gradients"):
        for kind in ("insertion", "deletion"):
            gain = report.metrics[f"{method}_{kind}_gain"]
            assert gain.value - gain.ci95 > 0.05, (method, kind)
    assert (
        sorted(report.pictures) == ["integrated_gradients_1_for_low", "occlusion_1_for_low"]
        or len(report.pictures) == 2
    )
    curve = report.series["deletion"].ys["occlusion"]
    assert curve[0] > curve[1] > 0.5
    assert [row[0] for row in report.tables["attributions"].rows] == ["occlusion", "integrated_gradients", "random"]


def test_a_quantized_network_is_judged_by_occlusion_with_a_warning():
    digits = datasets.subset(data=datasets.digits(size=8), per_class=1)
    network = quantize.static(data=digits)(networks.conv4(data=digits, width=4, blocks=1, classes="data")(seed=0))
    ctx = Context()
    mapping = evaluate.attributions(data=digits, methods=("saliency",), samples=2, points=3, orders=1, pictures=0)
    assert "occlusion_deletion_gain" in ctx.apply(mapping, network).metrics
    assert any("saliency is left out, and occlusion judged" in text for text in ctx.warnings)


def test_values_have_no_probability_that_could_fall(corner):
    values = dataclasses.replace(corner, signature=dataclasses.replace(corner.signature, answers="values"))
    with pytest.raises(DomainError, match="no classes or labels"):
        evaluate.attributions(data=Spots())(values)


def test_an_embedding_is_not_taken_for_scores_of_the_data_s_classes() -> None:
    digits = datasets.subset(data=datasets.digits(size=8), per_class=1)
    with pytest.raises(DomainError, match=r"numbers without names, and the data have 10 classes"):
        evaluate.attributions(data=digits)(networks.conv4(data=digits, width=4, blocks=1)(seed=0))
