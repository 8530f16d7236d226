"""Pruning and distillation that look at a learner after it has adapted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.mappings.small import Corners, context, network, trained
from torch import nn

from mapsto import distill, evaluate, meta, networks, prune
from mapsto.data.sets.episodes import EpisodesOf
from mapsto.data.sets.sinusoids import Sinusoids
from mapsto.errors import DomainError, SpecError
from mapsto.kinds import Adaptation, Network
from mapsto.mappings.prune.meta import _squared_effects
from mapsto.nn.distill.divergences import kl
from mapsto.nn.distill.losses import distances
from mapsto.nn.meta.query_loss import adapted_loss, adapted_path
from mapsto.nn.prune.dependency_groups import find_groups
from mapsto.nn.train.batches import task_of
from mapsto.store import network_digest

pytestmark = pytest.mark.usefixtures("trusted")

DATA = Corners()
TASKS = EpisodesOf(data=DATA, ways=3, shots=2, queries=4)
GRADIENT = Adaptation(method="gradient", settings={"steps": 2, "rate": 0.1, "head": "zero", "batch_norm": "none"})


def learner(width: int = 8, adaptation: Adaptation | None = None, seed: int = 0) -> Network:
    import dataclasses

    made = context(seed).apply(networks.conv4(data=DATA, width=width, blocks=2), None)
    return dataclasses.replace(made, adaptation=adaptation or Adaptation(method="centroid"))


@pytest.mark.parametrize("adaptation", [Adaptation(method="centroid"), GRADIENT], ids=["centroid", "gradient"])
def test_the_importance_is_the_squared_slope_along_a_gate(adaptation: Adaptation) -> None:
    value = learner(4, adaptation)
    module = value.module().double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    task = task_of([context().tasks(TASKS)[0]])
    inputs = torch.randn(1, 18, 1, 8, 8, dtype=torch.float64)
    labels = torch.as_tensor(task.query_labels)

    def loss() -> torch.Tensor:
        path = adapted_path(module, adaptation, inputs, task)
        return nn.functional.cross_entropy(path[-1].flatten(0, 1), labels.flatten())

    module.requires_grad_(True)
    groups = find_groups(module, torch.zeros(2, 1, 8, 8, dtype=torch.float64), embedding=False).groups
    found = _squared_effects(module, groups, iter([loss()]))
    norm = next(part for part in module.modules() if isinstance(part, nn.BatchNorm2d))
    gate = torch.ones(4, dtype=torch.float64, requires_grad=True)
    norm.register_forward_hook(lambda _module, _given, out: out * gate[:, None, None])
    (slopes,) = torch.autograd.grad(loss(), gate)
    expected = slopes.square().numpy()
    (group,) = groups
    exact = adaptation is not GRADIENT  # else the readers move in the inner steps
    assert np.allclose(found[group.name], expected / expected.mean(), rtol=1e-9 if exact else 0.3)


def test_it_keeps_what_the_adapted_learner_needs() -> None:
    value, _ = trained(meta.protonet(tasks=TASKS, steps=40, learning_rate=0.01), learner(16))
    test = evaluate.episodes(tasks=EpisodesOf(data=Corners(seed=1), ways=3, shots=2, queries=4), episodes=60)
    budget = {"macs": 0.3, "prune_embedding": True}
    small = context().apply(prune.meta(tasks=TASKS, episodes=10, rounds=3, **budget), value)
    other = context().apply(prune.magnitude(**budget), value)
    lost, more = (context().apply(test, each).metrics["loss"].value for each in (small, other))
    assert lost < more
    assert small.adaptation == value.adaptation


def test_rounds_end_at_the_budget_and_need_a_share() -> None:
    value = learner(16)
    small = context().apply(prune.meta(tasks=TASKS, episodes=2, rounds=4, parameters=0.4), value)
    count = sum(t.numel() for name, t in small.tensors.items() if "running" not in name and "num" not in name)
    whole = sum(t.numel() for name, t in value.tensors.items() if "running" not in name and "num" not in name)
    assert 0.3 < count / whole <= 0.42
    budget = {"parameters": 0.5, "max_prune": 0.4, "prune_embedding": True}
    limited = context().apply(prune.meta(tasks=TASKS, episodes=2, rounds=4, **budget), value)
    assert min(len(t) for t in limited.tensors.values() if t.ndim == 4) >= 10, "of sixteen, in all rounds together"
    with pytest.raises(SpecError, match="rounds need a budget that is a share"):
        prune.meta(tasks=TASKS, bytes=1000.0)
    classifier = context().apply(prune.meta(tasks=TASKS, macs=0.5, episodes=2, rounds=1), network(4, width=16))
    assert classifier.signature.outputs[0].shape == ("N", 4)


def test_the_path_begins_before_the_first_step_and_gradients_reach_the_first_weights() -> None:
    value = learner(4, GRADIENT)
    module, task = value.module(), task_of([context().tasks(TASKS)[n] for n in range(2)])
    loss = adapted_loss(module, GRADIENT, task, value.signature.preprocessing)
    first = next(module.parameters())
    assert torch.autograd.grad(loss, first)[0].abs().sum() > 0
    inputs = torch.randn(2, 18, 1, 8, 8)
    with torch.no_grad():
        path = adapted_path(module, GRADIENT, inputs, task)
    assert path.shape == (3, 2, 12, 3)
    assert not path.requires_grad
    assert torch.equal(path[0], torch.zeros_like(path[0])), "the head begins at 0"


@pytest.mark.parametrize("adaptation", [Adaptation(method="centroid"), GRADIENT], ids=["centroid", "gradient"])
def test_the_loss_is_that_of_its_parts(adaptation: Adaptation) -> None:
    teacher, student = learner(8, adaptation, seed=1), learner(4, adaptation)
    task = task_of([context().tasks(TASKS)[0]])
    process = distill.meta(teacher=teacher, tasks=TASKS, alpha=0.3, temperature=2.0, features=0.5)
    ctx = context()
    module, _, _ = process.learner(student, ctx)
    module.eval()
    inputs = torch.randn(1, 18, 1, 8, 8)
    loss = process.objective(student, ctx)(module, inputs, task, 0)
    ours = adapted_path(module.network, adaptation, inputs, task)
    theirs = adapted_path(teacher.module(), adaptation, inputs, task)
    steps = range(1, 3) if len(ours) > 1 else [0]
    soft = torch.stack([kl(ours[k].flatten(0, 1), theirs[k].flatten(0, 1), temperature=2.0) for k in steps]).mean()
    hard = nn.functional.cross_entropy(ours[-1].flatten(0, 1), torch.as_tensor(task.query_labels).flatten())
    between = distances(module.network(inputs[0]), teacher.module()(inputs[0]))
    torch.testing.assert_close(loss, 0.3 * soft + 0.7 * hard + 0.5 * between)


def test_a_student_learns_to_adapt_and_resumes() -> None:
    teacher, _ = trained(meta.protonet(tasks=TASKS, steps=40, learning_rate=0.01), learner(16))
    process = distill.meta(teacher=teacher, tasks=TASKS, steps=12, epoch=4, learning_rate=0.01, leave_one_out=True)
    student, metrics = trained(process, learner(4, teacher.adaptation))
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    assert student.adaptation is not None
    stopped, _ = trained(process, learner(4, teacher.adaptation), stop=5)
    assert network_digest(stopped) == network_digest(student)


def test_a_head_that_adapts_is_kept() -> None:
    learned = meta.maml(tasks=TASKS, steps=2, inner_steps=2, engine="loop")
    teacher, _ = trained(learned, learner(8))
    student, _ = trained(learned, learner(4))
    result, _ = trained(distill.meta(teacher=teacher, tasks=TASKS, steps=2, epoch=2), student)
    assert result.signature == student.signature
    assert result.tensors.keys() == student.tensors.keys()


def test_a_broken_teacher_is_refused() -> None:
    teacher = learner(4)
    next(iter(teacher.tensors.values())).fill_(math.nan)
    with pytest.raises(DomainError, match="answers are not finite"):
        trained(distill.meta(teacher=teacher, tasks=TASKS, steps=2, epoch=2), learner(4))


SINES = Sinusoids(shots=4, queries=5)
STEP_BY_STEP = Adaptation(method="gradient", settings={"steps": 2, "rate": 0.01, "head": "keep", "batch_norm": "none"})


def sine_learner(width: int, seed: int) -> Network:
    import dataclasses

    made = networks.mlp(inputs=1, widths=(width,), classes=1)(seed=seed)
    random = torch.Generator().manual_seed(seed)
    tensors = {name: tensor + torch.randn(tensor.shape, generator=random) for name, tensor in made.tensors.items()}
    return dataclasses.replace(made, tensors=tensors, adaptation=STEP_BY_STEP)


def test_values_are_imitated_by_their_squares() -> None:
    teacher, student = sine_learner(8, 1), sine_learner(4, 0)
    task = task_of([context().tasks(SINES)[0]])
    process = distill.meta(teacher=teacher, tasks=SINES, alpha=0.3, features=0)
    ctx = context()
    learner_, _, _ = process.learner(student, ctx)
    inputs = torch.as_tensor(task.inputs)
    loss = process.objective(student, ctx)(learner_, inputs, task, 0)
    ours, theirs = (adapted_path(each.module(), STEP_BY_STEP, inputs, task) for each in (student, teacher))
    soft = torch.stack([(ours[k] - theirs[k]).square().mean() for k in (1, 2)]).mean()
    hard = (ours[-1] - torch.as_tensor(task.query_labels)).square().mean()
    assert soft > 0.01, "softmax of one value would be 1 for both"
    torch.testing.assert_close(loss, 0.3 * soft + 0.7 * hard)


def test_scores_over_tasks_of_values_are_refused_and_the_remedy_named() -> None:
    with pytest.raises(DomainError, match=r"the tasks ask for values.*use distill.meta"):
        trained(distill.logits(teacher=sine_learner(8, 1), tasks=SINES, steps=1), sine_learner(4, 0))
