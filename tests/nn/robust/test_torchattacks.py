"""Attacks beside those of torchattacks 3.3.0: as strong, on the same network and images.

`pip install --no-deps torchattacks==3.3.0`: it pins a requests of 2022, which it imports for other attacks' weights.
"""

import numpy as np
import pytest
import torch

from mapsto import datasets, networks, train
from mapsto.nn.robust.evaluation import Examined
from mapsto.nn.robust.threat import Threat, raw, scores_of

pytestmark = pytest.mark.slow


class Module(torch.nn.Module):
    """What torchattacks takes: a module of images from 0 to 1."""

    def __init__(self, scores, module):
        super().__init__()
        self.scores, self.module = scores, module

    def forward(self, x):
        return self.scores(x)


@pytest.fixture(scope="module")
def trained():
    digits = datasets.digits(size=16)
    fresh = networks.conv4(data=digits, width=8, blocks=2, classes="data")(seed=0)
    fields = {"data": digits, "epochs": 3, "batch_size": 64}
    network = (train.supervised(**fields) >> train.adversarial(**fields, epsilon=0.1, learning_rate=0.03))(fresh)
    samples = digits.open()
    chosen = samples.take(np.arange(0, len(samples), 3))
    module = network.module().requires_grad_(False)
    scores = scores_of(module, network.signature.preprocessing)
    x, bounds = raw(chosen.inputs, network.signature.preprocessing, where="test")
    return Module(scores, module).eval(), x, torch.as_tensor(chosen.labels), bounds


@pytest.mark.parametrize("epsilon", [0.05, 0.1])
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "pgd-l2", "apgd-ce", "apgd-dlr"])
def test_as_many_answers_survive_as_under_torchattacks(trained, attack, epsilon):
    torchattacks = pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks==3.3.0")
    from functools import partial

    from mapsto.nn.robust.auto_projected_gradient import auto_projected_gradient
    from mapsto.nn.robust.margins import cross_entropies, difference_of_logits_ratio

    module, x, labels, bounds = trained
    norm = "l2" if attack.endswith("l2") else "linf"
    epsilon *= 10 if norm == "l2" else 1
    ours = Examined(scores=module, x=x, labels=labels, threat=Threat(norm, epsilon, bounds))
    clean = ours.clean()
    apgd = {"norm": "Linf", "eps": epsilon, "steps": 20, "n_restarts": 1}
    theirs = {
        "fgsm": lambda: torchattacks.FGSM(module, eps=epsilon),
        "pgd": lambda: torchattacks.PGD(module, eps=epsilon, alpha=epsilon / 4, steps=10, random_start=True),
        "pgd-l2": lambda: torchattacks.PGDL2(module, eps=epsilon, alpha=epsilon / 4, steps=10, random_start=True),
        "apgd-ce": lambda: torchattacks.APGD(module, loss="ce", **apgd),
        "apgd-dlr": lambda: torchattacks.APGD(module, loss="dlr", **apgd),
    }[attack]()
    torch.manual_seed(0)
    left_by_theirs = clean & (module(theirs(x, labels)).argmax(1) == labels)
    margin = difference_of_logits_ratio if attack == "apgd-dlr" else cross_entropies
    torch.manual_seed(0)
    left_by_ours = {
        "fgsm": lambda: ours.fgsm(clean),
        "pgd": lambda: ours.pgd(clean, 10),
        "pgd-l2": lambda: ours.pgd(clean, 10),
    }.get(
        attack,
        lambda: ours.under(
            clean, partial(auto_projected_gradient, module, threat=ours.threat, steps=20, margin=margin)
        ),
    )()
    shares = [100 * float(left.double().mean()) for left in (left_by_ours, left_by_theirs)]
    assert shares[0] <= shares[1] + (0.01 if attack == "fgsm" else 1), shares  # 1 point is 6 images
    assert abs(shares[0] - shares[1]) <= (0.01 if attack == "fgsm" else 3), shares
    assert shares[1] < 95, shares


def test_it_clamps_what_is_outside_of_black_and_white_in_silence_and_we_refuse_it(trained):
    torchattacks = pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks==3.3.0")
    from mapsto.errors import DataError
    from mapsto.kinds import Preprocessing

    module, x, labels, _ = trained
    outside = x[:4] * 3 - 1
    try:
        moved = torchattacks.FGSM(module, eps=0.0)(outside, labels[:4])
    except ValueError:
        pytest.skip("this version of torchattacks refuses it too")
    assert moved.min() >= 0, "it was clamped, by far more than eps"
    with pytest.raises(DataError, match="where an attack knows black as 0"):
        raw(outside, Preprocessing(channels=1, size=(16, 16)), where="data")
