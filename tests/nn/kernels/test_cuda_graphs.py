"""CUDA graphs: which work is recorded anew, and on a device that replaying it gives the gradients of the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mapsto import datasets, evaluate, meta, networks
from mapsto.context import Context, Numerics
from mapsto.nn.kernels import cuda_graphs
from mapsto.nn.meta.outer_gradient import by_chunks, trained


class _Launched:
    """Stands in for a recording where there is no device: counts, and launches the function each time."""

    made = 0

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        type(self).made += 1
        self._function, self._shapes = function, [tensor.shape for tensor in inputs]

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        assert [tensor.shape for tensor in inputs] == self._shapes
        return list(self._function(*inputs))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> type[_Launched]:
    monkeypatch.setattr(cuda_graphs, "Recorded", _Launched)
    monkeypatch.setattr(_Launched, "made", 0)
    return _Launched


def test_one_recording_serves_every_chunk_and_step_of_its_shape(made: type[_Launched]) -> None:
    weight, unused = (torch.rand(3, requires_grad=True) for _ in range(2))
    parameters, known = {"weight": weight, "unused": unused}, cuda_graphs.Recordings()

    def loss(at: Any, part: Sequence[Tensor]) -> Tensor:
        return (part[0] @ at["weight"]).square().sum()

    for _ in range(3):
        images = torch.rand(5, 3)
        mean = by_chunks(parameters, loss, [images], 2, known, "key")
        expected = (images @ weight).square().mean()
        torch.testing.assert_close(mean, expected)
        torch.testing.assert_close(torch.autograd.grad(mean, weight), torch.autograd.grad(expected, weight))
        with torch.no_grad():
            weight -= 0.1  # as an optimiser moves it: in its place
    assert made.made == 2  # two tasks, and the one that is left over


def test_another_function_or_other_places_are_recorded_anew_and_few_are_kept(made: type[_Launched]) -> None:
    known = cuda_graphs.Recordings()
    for key in ("a", "a", "b", "a", "c", "c"):
        known(key, lambda x: [x], [torch.zeros(1)])
    assert made.made == 3
    known("a", lambda x: [x], [torch.zeros(1)])  # "a" was the oldest and had to go
    assert made.made == 4
    known("a", lambda x: [x], [torch.zeros(2)])
    assert made.made == 5


DIGITS = datasets.digits(size=16)
TASKS = datasets.episodes(data=DIGITS, ways=3, shots=2, queries=3)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["vmap", "graph"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"first_order": True}, {"inner_steps": 3}, {"head": "zero"}, {"chunk_size": 2}, {"batch_norm": "inductive"}],
    ids=str,
)
def test_on_a_gpu_the_outer_gradient_is_the_loops(engine: str, fields: dict[str, Any]) -> None:
    def found(by: str) -> dict[str, Tensor]:
        train = meta.maml(tasks=TASKS, tasks_per_step=5, inner_rate=0.1, engine=by, **{"inner_steps": 2, **fields})
        context = Context(numerics=Numerics(device="cuda"))
        torch.manual_seed(0)
        network = networks.conv4(data=DIGITS, width=16)(seed=0)
        learner, _, _ = train.learner(network, context)
        learner.double().cuda()
        assert by in train.engines(learner, context)
        items, prepared = train.items(network, context), train._prepared(network, context)
        for step in range(2):
            learner.zero_grad()
            train._loss(learner, prepared(items[step]).double(), items[step], step, by).backward()
        return {name: value.grad for name, value in trained(learner).items() if value.grad is not None}

    base, other = found("loop"), found(engine)
    for name, expected in base.items():
        torch.testing.assert_close(other[name], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["auto", "graph"])
def test_on_a_gpu_a_learner_is_trained_and_evaluated_as_on_a_cpu(engine: str) -> None:
    train = meta.maml(tasks=TASKS, steps=20, inner_steps=2, inner_rate=0.1, learning_rate=0.01, engine=engine)
    judge = evaluate.episodes(
        tasks=datasets.episodes(data=DIGITS, ways=3, shots=2, queries=3, seed=1), episodes=50, batch_norm="both"
    )
    network = networks.conv4(data=DIGITS, width=16)(seed=0)
    on_gpu = Context(numerics=Numerics(device="cuda"))
    learner = on_gpu.apply(train, network)
    there, here = (context.apply(judge, learner).metrics["accuracy"].value for context in (on_gpu, Context()))
    assert there > 50
    assert there == pytest.approx(here, abs=1)
