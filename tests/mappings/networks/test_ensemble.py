"""An ensemble answers with the mean of its members' probabilities, whatever was done to them, in PyTorch and in a package."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch

from mapsto import adapt, choose, datasets, evaluate, export, networks, prune, quantize, train
from mapsto.errors import ComposeError, DomainError
from mapsto.mapping import fork
from mapsto.nn.network.inference import forward
from mapsto.nn.network.preprocess import prepare
from mapsto_runtime.predictor import Predictor

DIGITS = datasets.subset(data=datasets.digits(size=16), per_class=8)


def small(seed, **fields):
    return networks.conv4(**{"data": DIGITS, "width": 4, "blocks": 2, "classes": "data", **fields})(seed=seed)


def probabilities(network):
    samples = DIGITS.open()
    return forward(network.module(), samples.inputs, network.signature.preprocessing).softmax(1)


def compressed():
    return [
        quantize.static(data=DIGITS, samples=64)(small(0)),
        prune.magnitude(macs=0.6)(small(1)),
        quantize.dynamic()(small(2, width=3)),
    ]


def test_the_mean_of_probabilities_of_compressed_networks_of_other_structures_and_normalisations():
    members = compressed()
    other = dataclasses.replace(members[1].signature.preprocessing, mean=(0.3,), std=(0.7,))
    members[1] = dataclasses.replace(
        members[1], signature=dataclasses.replace(members[1].signature, preprocessing=other)
    )
    whole = networks.ensemble(members=members)()
    expected = torch.stack([probabilities(member) for member in members]).mean(0)
    assert torch.allclose(probabilities(whole), expected, atol=1e-5)
    assert np.allclose(
        forward(whole.module(), DIGITS.open().inputs, whole.signature.preprocessing).exp().sum(1), 1, atol=1e-5
    )
    sizes = [evaluate.size()(network).metrics["bytes"].value for network in (whole, *members)]
    assert sizes[0] == sum(sizes[1:])


def test_a_package_of_int8_members_answers_alike_and_stores_int8(tmp_path):
    members = [quantize.static(data=DIGITS, samples=64)(small(seed)) for seed in (0, 1)]
    whole = networks.ensemble(members=members)()
    package = export.onnx()(whole)
    images = DIGITS.open().inputs[:20]
    for name, path in package.files.items():
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    answers = Predictor(tmp_path).outputs(prepare(images, whole.signature.preprocessing).numpy())
    given = forward(whole.module(), images, whole.signature.preprocessing).exp().numpy()
    assert np.abs(np.exp(answers) - given).max() < 0.05
    operations = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operations.count("Conv") == 4
    assert operations.count("DequantizeLinear") >= 8
    codes = [item.data_type for item in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert codes.count(onnx.TensorProto.INT8) >= 6, "weights of both members"


def test_a_fork_goes_on_as_one_network():
    two = (
        small(0)
        and fork(int8=quantize.static(data=DIGITS, samples=64), pruned=prune.magnitude(macs=0.6)) >> choose.ensemble()
    )
    whole = two(small(3))
    parts = [quantize.static(data=DIGITS, samples=64)(small(3)), prune.magnitude(macs=0.6)(small(3))]
    assert torch.allclose(probabilities(whole), torch.stack([probabilities(part) for part in parts]).mean(0), atol=1e-5)
    with pytest.raises(ComposeError, match="takes networks: branch 'size' gives Report"):
        _ = fork(size=evaluate.size(), int8=quantize.static(data=DIGITS)) >> choose.ensemble()


def test_members_that_do_not_belong_together_are_refused():
    with pytest.raises(DomainError, match=r"number 2: it takes image of 1 × \(8, 8\)"):
        networks.ensemble(members=[small(0), small(1, size=8, blocks=1)])()
    with pytest.raises(DomainError, match="for other classes"):
        networks.ensemble(members=[small(0), small(1, classes=3)])()


def test_attacks_go_through_all_members_and_say_that_they_are_quantized():
    from mapsto.context import Context

    context = Context()
    whole = networks.ensemble(members=compressed())()
    report = context.apply(
        evaluate.robustness(data=DIGITS, samples=40, epsilon=0.1, attacks=["pgd"], steps=3, curve=()), whole
    )
    assert report.metrics["pgd"].value <= report.metrics["accuracy"].value
    assert "gradients pass straight through" in context.notes[0]


@pytest.mark.parametrize(
    "step",
    [
        lambda: adapt.ridge(data=DIGITS),
        lambda: adapt.coral(source=DIGITS, target=DIGITS, strength=0.1),
        lambda: train.adversarial(data=datasets.subset(data=DIGITS, classes=("1", "2")), epochs=1),
    ],
)
def test_the_last_member_s_head_is_not_taken_for_that_of_all(step):
    whole = networks.ensemble(members=[small(0), small(1, width=2)])()
    with pytest.raises(DomainError, match=r"an ensemble has no embedding.*2 members.*adapt each member"):
        step()(whole)


def test_a_member_that_is_quantized_is_found_by_what_needs_floats():
    whole = networks.ensemble(members=[small(0), quantize.dynamic()(small(1))])()
    steps = (prune.magnitude(macs=0.6), adapt.lora(), quantize.static(data=DIGITS, samples=16))
    for step in steps:
        with pytest.raises(DomainError, match="the network is quantized"):
            step(whole)
