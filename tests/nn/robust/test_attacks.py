"""Attacks stay within the ball and the range of values, and find what is there to be found."""

import pytest
import torch
from torch import nn

from mapsto.errors import DataError
from mapsto.kinds import Preprocessing
from mapsto.nn.robust.auto_projected_gradient import auto_projected_gradient
from mapsto.nn.robust.evaluation import Examined, doubts
from mapsto.nn.robust.fast_gradient import fast_gradient
from mapsto.nn.robust.margins import cross_entropies, difference_of_logits_ratio
from mapsto.nn.robust.projected_gradient import projected_gradient
from mapsto.nn.robust.threat import Threat, raw, scores_of

THREATS = [Threat("linf", 0.1, (0.0, 1.0)), Threat("l2", 0.5, (0.0, 1.0)), Threat("l2", 0.5)]
ATTACKS = {
    "fgsm": fast_gradient,
    "fast": lambda *given: fast_gradient(*given, random_start=True),
    "pgd": lambda *given: projected_gradient(*given, steps=5),
    "apgd": lambda *given: auto_projected_gradient(*given, steps=7),
    "apgd-dlr": lambda *given: auto_projected_gradient(*given, steps=7, margin=difference_of_logits_ratio),
}


def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        module[1].weight *= 4
        module[1].bias -= module[1].weight.sum(1) / 2  # its answers change around grey
        module[3].bias.zero_()
    return module


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_moved_inputs_stay_within_the_ball_and_the_range_and_raise_the_loss(name, threat):
    module = network()
    x = torch.rand(20, 3, 2, 2)
    labels = module(x).argmax(1)
    before = x.clone()
    moved = ATTACKS[name](module, x, labels, threat)
    delta = (moved - x).flatten(1)
    reach = delta.abs().amax(1) if threat.norm == "linf" else delta.norm(dim=1)
    assert torch.equal(x, before)
    assert reach.max() <= threat.epsilon + 1e-6
    if threat.bounds is not None:
        assert moved.min() >= 0
        assert moved.max() <= 1
    assert not moved.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())
    with torch.no_grad():
        assert cross_entropies(module(moved), labels).mean() > cross_entropies(module(x), labels).mean() + 0.01


def test_against_a_linear_network_one_step_is_the_optimum_and_apgd_reaches_it():
    torch.manual_seed(1)
    linear, threat = nn.Linear(8, 2), Threat("linf", 0.2)
    x = torch.randn(50, 8)
    labels = linear(x).argmax(1)
    normal = (linear.weight[0] - linear.weight[1]).abs().sum()
    gap = (linear(x)[:, 0] - linear(x)[:, 1]).abs()
    given = Examined(scores=linear, x=x, labels=labels, threat=threat)
    expected = gap > 0.2 * normal
    for found in (given.fgsm(given.clean()), given.pgd(given.clean(), 10), given.apgd(given.clean(), 10)):
        assert torch.equal(found, expected)
    assert 0 < int(expected.sum()) < 50


def test_apgd_goes_on_from_the_best_point_so_that_more_steps_never_lose():
    module, threat = network(), THREATS[0]
    x = torch.rand(64, 3, 2, 2)
    labels = module(x).argmax(1)
    wrong = []
    for steps in (5, 50):
        torch.manual_seed(3)
        moved = auto_projected_gradient(module, x, labels, threat, steps=steps)
        wrong.append(int((module(moved).argmax(1) != labels).sum()))
    assert 0 < wrong[0] <= wrong[1]


def test_images_outside_black_and_white_are_refused_and_not_clamped():
    with pytest.raises(DataError, match="from -1 to 1"):
        raw(torch.tensor([[[[-1.0, 1.0]]]]), Preprocessing(channels=1, size=(1, 2)), where="data")
    rows, bounds = raw(torch.tensor([[-3.0, 9.0]]), Preprocessing(kind="none"), where="data")
    assert bounds is None
    assert rows.tolist() == [[-3.0, 9.0]]


def test_gradients_go_through_grey_to_colour_size_and_normalisation():
    before = Preprocessing(channels=3, size=(4, 4), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    scores = scores_of(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), before)
    x, labels = torch.rand(5, 1, 6, 6), torch.tensor([0, 1, 2, 0, 1])
    moved = fast_gradient(scores, x, labels, Threat("linf", 0.05, (0.0, 1.0)))
    assert moved.shape == x.shape
    assert cross_entropies(scores(moved), labels).mean() > cross_entropies(scores(x), labels).mean()


@pytest.mark.parametrize("doubted", [True, False])
def test_masked_gradients_raise_doubts(doubted):
    module = network()
    scores = (lambda x: module((x > 0.5).float() + 0 * x)) if doubted else module  # rounding lets no gradient through
    torch.manual_seed(0)
    x = torch.rand(64, 3, 2, 2)
    with torch.no_grad():
        labels = scores(x).argmax(1)
    few = Examined(scores=scores, x=x, labels=labels, threat=Threat("linf", 0.05, (0.0, 1.0)))
    clean = few.clean()
    grey = few.at(0.5).pgd(clean, 10)
    said = doubts(
        few,
        clean,
        {"pgd": few.pgd(clean, 10), "fgsm": few.fgsm(clean)},
        steps=10,
        widest=0.5,
        share=float(grey.double().mean()),
    )
    assert bool(said) == doubted, said
    assert any("no gradient" in text for text in said) == doubted


def test_behind_an_argmax_the_gradient_is_zero_and_doubts_are_raised():
    pair = Examined(
        scores=lambda x: torch.nn.functional.one_hot((x[:, 0] < 0).long(), 2).float(),
        x=torch.full((30, 2), 1.0),
        labels=torch.zeros(30, dtype=torch.long),
        threat=Threat("linf", 0.1),
    )
    clean = pair.clean()
    assert all(bool(right.all()) for right in (pair.fgsm(clean), pair.pgd(clean, 3), pair.apgd(clean, 3)))
    found = doubts(pair, clean, {"fgsm": clean, "pgd": clean}, steps=3, widest=0.8, share=1.0)
    assert any("no gradient reaches the input of 30 of 30" in text for text in found)
