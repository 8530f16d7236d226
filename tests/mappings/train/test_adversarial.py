"""Adversarial training: every way of it makes a network harder to mislead, and what goes wrong with one-step attacks is said."""

import pytest
import torch
from torch import nn

from mapsto import augment, datasets, evaluate, networks, quantize, train
from mapsto.context import Context, Numerics
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Network, trusting
from mapsto.nn.robust.threat import Threat
from mapsto.nn.robust.validation import Judge

DIGITS = datasets.subset(data=datasets.digits(size=8), per_class=20)
FIELDS = {"data": DIGITS, "batch_size": 50, "epsilon": 0.1}
ONE_THREAD = Numerics(threads=1)


def small(seed=0):
    return networks.conv4(data=DIGITS, width=4, blocks=1, classes="data")(seed=seed)


@pytest.mark.parametrize(
    ("method", "more"), [("fgsm", {}), ("free", {"replays": 4}), ("pgd", {"steps": 2}), ("trades", {"steps": 2})]
)
def test_each_method_makes_a_network_harder_to_mislead(method, more):
    attack = evaluate.robustness(data=DIGITS, attacks=["pgd"], samples=100, epsilon=0.1, steps=5, curve=())
    epochs = 3 if method == "free" else 10
    usual = train.supervised(data=DIGITS, batch_size=50, epochs=10)
    robust = train.adversarial(**FIELDS, method=method, epochs=epochs, **more)
    context = Context(numerics=ONE_THREAD)
    found = [context.apply(attack, context.apply(step, small())).metrics["pgd"].value for step in (usual, robust)]
    assert found[1] > found[0] + 5, found


def test_the_best_epoch_by_robust_accuracy_is_the_result_and_training_stops():
    context = Context(numerics=ONE_THREAD)
    step = train.adversarial(**FIELDS, validation=DIGITS, epochs=30, stop_after=1, learning_rate=0.02)
    live = step.open(small(), None, context)
    items, seen = step.items(small(), context), []
    while not live.done:
        context.seed_everything(live.step)
        seen += [
            row["val_robust_accuracy"] for _, row in live.advance(items[live.step]) if "val_robust_accuracy" in row
        ]
    assert len(seen) < 30
    assert live.figures["val_robust_accuracy"] == max(seen)


def test_what_has_learnt_to_answer_one_step_alone_is_said_loudly():
    said = []
    samples = DIGITS.open()
    judge = Judge(
        samples=samples,
        preprocessing=samples.preprocessing,
        threat=lambda bounds: Threat("linf", 0.1, bounds),
        prefix="train_",
        device=torch.device("cpu"),
        overfitted=said.append,
    )
    judge._look({"": 80.0, "fgsm_": 90.0, "robust_": 3.0})
    judge._look({"": 80.0, "fgsm_": 45.0, "robust_": 41.0})
    assert len(said) == 1
    assert "catastrophic overfitting" in said[0]


def test_a_quantized_network_can_be_trained_on_and_what_does_not_fit_is_refused():
    quantized = quantize.static(data=DIGITS, samples=64)(small())
    trained = train.adversarial(**FIELDS, epochs=1)(quantized)
    assert trained.edits[-1] == quantized.edits[-1]
    with pytest.raises(DomainError, match="mixes samples"):
        train.adversarial(**FIELDS, augment=(augment.mixup(),))(small())
    with pytest.raises(DomainError, match="8/255 if steps of a byte"):
        train.adversarial(data=DIGITS, epsilon=8)(small())
    with pytest.raises(SpecError, match="fraction such as 8/255"):
        train.adversarial(data=DIGITS, epsilon="eight")


class Deciding(nn.Module):
    """Ends in an argmax, through which no gradient passes."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(64, 10)

    def forward(self, x):
        return nn.functional.one_hot(self.classifier(x.flatten(1)).argmax(1), 10).float()


@pytest.mark.parametrize("method", ["fast", "free", "trades"])
def test_a_network_that_no_gradient_passes_through_is_refused(method):
    classes = DIGITS.open().classes
    with trusting("tests"):
        network = Network.from_module(Deciding(), torch.rand(2, 1, 8, 8), classes=classes)
        with pytest.raises(DomainError, match=r"no gradient in any parameter.*Deciding.*no argmax"):
            train.adversarial(**FIELDS, method=method, epochs=1)(network)
