"""Learners that adapt by gradient descent: against formulas written out by hand, engine against engine, and in use."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mappings.small import Corners, context, network
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear, mse_loss

from mapsto import datasets, evaluate, kinds, meta, networks, prune
from mapsto.errors import DataError, DomainError, SpecError
from mapsto.kinds import Adaptation, Network
from mapsto.nn.meta import inner_loop
from mapsto.nn.meta.adaptation import gradient, head_gradient
from mapsto.nn.meta.adaptation_methods import task_scores
from mapsto.nn.meta.conjugate_gradient import conjugate_gradient
from mapsto.nn.meta.gradient_based import GradientBased
from mapsto.nn.meta.learner_module import Learner
from mapsto.nn.meta.parameter_swap import Places
from mapsto.nn.meta.updates import adam, alfa, layerwise
from mapsto.nn.train.batches import Task
from mapsto.store import Store

WAYS = 3
TASKS = datasets.episodes(data=Corners(), ways=WAYS, shots=2, queries=3)

pytestmark = pytest.mark.usefixtures("trusted")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def opened(mapping: Any, seed: int = 0) -> tuple[Learner, Tensor, Task]:
    """The learner before training in double precision, and prepared inputs of its first step."""
    torch.manual_seed(seed)
    ctx, value = context(), network()
    learner, _, _ = mapping.learner(value, ctx)
    task = mapping.items(value, ctx)[0]
    inputs = mapping._prepared(value, ctx)(task)
    return learner.double(), inputs.double(), task


def outer_gradient(mapping: Any, engine: str = "loop", step: int = 0) -> tuple[float, dict[str, Tensor], Learner]:
    learner, inputs, task = opened(mapping)
    torch.manual_seed(1)
    loss = mapping._loss(learner, inputs, task, step, engine)
    loss.backward()
    found = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    return loss.item(), found, learner


Start = dict[str, Tensor]
Loss = Callable[[Start, Tensor, Tensor], Tensor]


def by_hand(
    mapping: Any, adapted: Callable[[Start, Callable[[Start], Tensor]], Start], *, statistics: bool | None = True
) -> tuple[float, dict[str, Tensor]]:
    """The mean query loss of the tasks after `adapted`, and its gradient, written without any of the library's inner loop.

    Batch norms take each batch's statistics, or with `statistics` False the stored ones.
    """
    learner, inputs, task = opened(mapping)
    module = learner.network.train(statistics)
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    start = dict(module.named_parameters())

    def output(at: Start, x: Tensor) -> Tensor:
        own = {name: value for name, value in at.items() if not name.startswith("~")}
        found = functional_call(module, (own, {name: value.clone() for name, value in buffers.items()}), (x,))
        return linear(found, at["~w"], at["~b"]) if "~w" in at else found

    total = torch.zeros(())
    shots = task.support_labels.shape[1]
    for number in range(len(inputs)):
        support, query = inputs[number, :shots], inputs[number, shots:]
        labels, wanted = torch.tensor(task.support_labels[number]), torch.tensor(task.query_labels[number])
        moved = adapted(start, lambda at, x=support, y=labels: cross_entropy(output(at, x), y))
        total = total + cross_entropy(output(moved, query), wanted) / len(inputs)
    total.backward()
    return total.item(), {f"network.{name}": p.grad for name, p in start.items() if p.grad is not None}


def descent(
    steps: int,
    rate: float | Callable[[str], float],
    *,
    second_order: bool = True,
    moves: Callable[[str], bool] = lambda _: True,
) -> Any:
    """Steps of gradient descent at one rate, or at what `rate` says for a parameter's name."""

    def adapted(start: Start, loss: Callable[[Start], Tensor]) -> Start:
        at = dict(start)
        for _ in range(steps):
            names = [name for name in at if moves(name)]
            found = torch.autograd.grad(loss(at), [at[name] for name in names], create_graph=second_order)
            rates = [rate(name) if callable(rate) else rate for name in names]
            at |= {name: at[name] - by * slope for name, by, slope in zip(names, rates, found, strict=True)}
        return at

    return adapted


def head_of_zeros() -> Start:
    """What `by_hand` takes for a head that begins at 0."""
    weight = torch.zeros(WAYS, 32, dtype=torch.float64, requires_grad=True)
    return {"~w": weight, "~b": torch.zeros(WAYS, dtype=torch.float64, requires_grad=True)}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-12) -> None:
    assert wanted.keys() <= found.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


# ------------------------------------------------------------------------------------------------------------------ the inner loop


@pytest.mark.parametrize("first_order", [False, True])
def test_maml_is_the_gradient_written_by_hand(first_order: bool) -> None:
    mapping = meta.maml(tasks=TASKS, inner_steps=3, inner_rate=0.2, first_order=first_order, tasks_per_step=2)
    loss, found, _ = outer_gradient(mapping)
    wanted_loss, wanted = by_hand(mapping, descent(3, 0.2, second_order=not first_order))
    assert loss == pytest.approx(wanted_loss, abs=1e-12)
    assert_same(found, wanted)
    assert max(float(value.abs().max()) for value in wanted.values()) > 1e-3


def test_maml_with_stored_statistics() -> None:
    mapping = meta.maml(tasks=TASKS, inner_steps=2, inner_rate=0.2, batch_norm="none", tasks_per_step=2)
    loss, found, _ = outer_gradient(mapping)
    wanted_loss, wanted = by_hand(mapping, descent(2, 0.2), statistics=False)
    assert loss == pytest.approx(wanted_loss, abs=1e-12)
    assert_same(found, wanted)


def test_maml_from_a_head_that_is_zero() -> None:
    mapping = meta.maml(tasks=TASKS, inner_steps=2, inner_rate=0.2, head="zero", tasks_per_step=2)
    loss, found, _ = outer_gradient(mapping)
    wanted_loss, wanted = by_hand(mapping, lambda start, loss: descent(2, 0.2)({**start, **head_of_zeros()}, loss))
    assert loss == pytest.approx(wanted_loss, abs=1e-12)
    assert_same(found, wanted)


@pytest.mark.parametrize("head", ["learned", "zero"])
def test_a_head_with_a_rate_of_its_own(head: Any) -> None:
    rates = {"inner_rate": 0.0625, "head_rate": 0.5}
    mapping = meta.maml(tasks=TASKS, inner_steps=2, **rates, head=head, tasks_per_step=2)
    loss, found, _ = outer_gradient(mapping)
    names = "classifier." if head == "learned" else "~"
    steps = descent(2, lambda name: 0.5 if name.startswith(names) else 0.0625)
    own = {} if head == "learned" else head_of_zeros()
    wanted_loss, wanted = by_hand(mapping, lambda start, loss: steps({**start, **own}, loss))
    assert loss == pytest.approx(wanted_loss, abs=1e-12)
    assert_same(found, wanted)
    again, _, _ = outer_gradient(meta.metasgd(tasks=TASKS, inner_steps=2, **rates, head=head, tasks_per_step=2))
    assert again == pytest.approx(loss, abs=1e-12)
    for other in (meta.mamlpp, meta.alfa):
        learner, _, _ = opened(other(tasks=TASKS, inner_steps=2, **rates, head=head))
        learned = {name.removeprefix("~rates."): t for name, t in learner.tensors.items() if name.startswith("~rates.")}
        assert {name.startswith(names) for name in learned} == {True, False}
        for name, tensor in learned.items():
            assert (tensor == (0.5 if name.startswith(names) else 0.0625)).all(), name


def test_boil_moves_the_body_and_trains_the_head() -> None:
    mapping = meta.boil(tasks=TASKS, inner_steps=2, inner_rate=0.2, tasks_per_step=2)
    loss, found, _ = outer_gradient(mapping)
    wanted_loss, wanted = by_hand(mapping, descent(2, 0.2, moves=lambda name: not name.startswith("classifier")))
    assert loss == pytest.approx(wanted_loss, abs=1e-12)
    assert_same(found, wanted)
    assert "network.classifier.weight" in wanted


def test_inductive_queries_do_not_see_each_other() -> None:
    for mode, alone in (("inductive", True), ("transductive", False), ("none", True)):
        mapping = meta.maml(tasks=TASKS, steps=2, inner_steps=1, batch_norm=mode, engine="loop")
        learner = context().apply(mapping, network())
        episode = TASKS.open()[5]
        x, q = (torch.tensor(part).float()[None] / 255 for part in (episode.support, episode.query))
        y = torch.tensor(episode.support_labels)[None]
        own = (WAYS, learner.adaptation)
        whole = gradient.episode_scores(learner.module(), x, y, q, *own)
        first = gradient.episode_scores(learner.module(), x, y, q[:, :1], *own)
        assert torch.allclose(whole[:, :1], first, atol=1e-5) == alone, mode


@pytest.mark.parametrize("mode", ["transductive", "inductive", "none"])
@pytest.mark.parametrize("threads", [1, 2])
def test_scores_are_the_same_fused_and_in_threads(mode: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(16 * 16, WAYS),
    )
    module = module.double().eval()
    x, q = torch.rand(3, 6, 1, 8, 8).double(), torch.rand(3, 5, 1, 8, 8).double()
    y = torch.arange(6)[None].remainder(WAYS).expand(3, 6)
    own = (WAYS, Adaptation(method="gradient", settings={"steps": 3, "rate": 0.1, "batch_norm": mode}))
    kinds_seen: set[str] = set()
    real = gradient.fit

    def fit(module: nn.Module, *rest: Any) -> Any:
        kinds_seen.update(type(part).__name__ for part in module.modules())
        return real(module, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(gradient, "compiled_kernels", lambda: False)
        wanted = gradient.path_scores(module, x, y, q, *own)
    torch.set_num_threads(threads)
    monkeypatch.setattr(gradient, "fit", fit)
    found = gradient.path_scores(module, x, y, q, *own)
    assert torch.allclose(found, wanted, atol=1e-10)
    if gradient.compiled_kernels():
        assert ("FusedNorm" in kinds_seen) == (mode != "none")


def test_parameters_are_swapped_and_put_back() -> None:
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    before = module[2].weight = module[0].weight
    places = Places(module)
    with pytest.raises(RuntimeError, match="shapes"), places.holding({"0.weight": torch.ones(3, 3)}):
        module(torch.ones(1, 2))
    assert module[0].weight is before
    x, other = torch.rand(1, 2), torch.rand(2, 2)
    with places.holding({"2.weight": other}):
        found = module(x)
    assert module[0].weight is before
    assert module[2].weight is before
    assert torch.equal(found, functional_call(module, {"2.weight": other}, (x,)))


@pytest.mark.parametrize("kernels", [True, False])
def test_auto_is_a_rule_and_no_clock(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from mapsto.nn.kernels import compiled

    def read(*_: object) -> float:
        raise AssertionError("a clock was read")

    monkeypatch.setattr(compiled, "compiled_kernels", lambda: kernels)
    mapping = meta.maml(tasks=TASKS, inner_steps=1)
    chosen = {}
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", read)
        for name, train, value in (
            ("convolutions", mapping, networks.conv4(channels=1, size=16, width=4)(seed=0)),
            ("by the support set", meta.maml(tasks=TASKS, inner_steps=1, batch_norm="inductive"), network()),
            ("statistics of each step", meta.maml(tasks=TASKS, inner_steps=1, batch_norm="per_step"), network()),
            ("no convolutions", meta.maml(tasks=datasets.sinusoids(), inner_steps=1), networks.mlp()(seed=0)),
        ):
            chosen[name] = train.open(value, None, context()).snapshot()["chosen"]["engine"]
    assert chosen == {
        "convolutions": "fused" if kernels else "threads",
        "by the support set": "threads",
        "statistics of each step": "loop",
        "no convolutions": "vmap",
    }


ENGINES: list[tuple[str, dict[str, Any]]] = [
    ("maml", {}),
    ("maml", {"batch_norm": "inductive"}),
    ("maml", {"batch_norm": "none", "first_order": True}),
    ("maml", {"head": "zero", "head_rate": 0.5}),
    ("boil", {}),
    ("metasgd", {}),
    ("mamlpp", {"batch_norm": "inductive", "cheap": 0.0}),
    ("imaml", {}),
    ("alfa", {}),
    ("reptile", {"inner_batch": 4}),
]


@pytest.mark.parametrize(("name", "fields"), ENGINES, ids=lambda part: str(part))
def test_every_engine_gives_the_same_gradient(name: str, fields: dict[str, Any]) -> None:
    made = {"tasks": TASKS, "inner_steps": 2, "inner_rate": 0.1, "tasks_per_step": 3, **fields}
    mapping = getattr(meta, name)(**made)
    loss, wanted, _ = outer_gradient(mapping)
    for engine in mapping.engines(opened(mapping)[0], context()):
        for chunk in (None, 2):
            again, found, _ = outer_gradient(getattr(meta, name)(**made, chunk_size=chunk), engine)
            assert again == pytest.approx(loss, abs=1e-12), engine
            assert found.keys() == wanted.keys(), engine
            assert_same(found, wanted, 1e-10)


@pytest.mark.parametrize("name", ["maml", "mamlpp", "metasgd", "alfa"])
def test_checkpointing_changes_nothing(name: str) -> None:
    fields = {"tasks": TASKS, "inner_steps": 3, "inner_rate": 0.1, "tasks_per_step": 2}
    if name == "mamlpp":
        fields["cheap"] = 0.0
    loss, wanted, plain = outer_gradient(getattr(meta, name)(**fields))
    again, found, learner = outer_gradient(getattr(meta, name)(**fields, checkpointing=True))
    assert again == pytest.approx(loss, abs=1e-12)
    assert_same(found, wanted)
    for buffer, other in zip(learner.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(buffer, other, rtol=0, atol=1e-12)


def test_checkpointing_with_a_rule_that_remembers() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 3).double()
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    found: list[Tensor] = []
    for checkpointed in (False, True):
        call = inner_loop.FunctionalModule(net, inner_loop.Inner(update="adam", rate=0.01), {})
        start = dict(net.named_parameters())
        loss = inner_loop.task_loss(
            call, start, x, y, x, y, 3, weights=[0, 0, 0, 1], second_order=True, checkpointed=checkpointed
        )
        found.append(torch.autograd.grad(loss, start["weight"])[0])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_per_step_statistics_are_the_mean_over_tasks_and_stay_with_their_step() -> None:
    mapping = meta.maml(tasks=TASKS, inner_steps=2, inner_rate=0.1, batch_norm="per_step", tasks_per_step=3)
    _, _, learner = outer_gradient(mapping)
    _, inputs, task = opened(mapping)
    shots = task.support_labels.shape[1]
    conv = opened(mapping)[0].network.get_submodule("conv")
    means = torch.stack([conv(x[:shots]).mean((0, 2, 3)) for x in inputs]).mean(0)
    torch.testing.assert_close(learner.tensors["norm.running_mean@0"], 0.1 * means, rtol=0, atol=1e-12)
    assert sorted(name for name in learner.tensors if "mean" in name) == [f"norm.running_mean@{k}" for k in range(3)]
    assert not any("running" in name for name, _ in learner.named_parameters())


def test_divergence_names_step_loss_and_rate() -> None:
    net = nn.Linear(2, 1)
    x, y = torch.full((1, 4, 2), 1e3), torch.ones(1, 4, 1)
    with pytest.raises(DomainError, match=r"inner step \d+ is (inf|nan) at an inner rate of 100"):
        gradient.episode_scores(net, x, y, x, 1, Adaptation(method="gradient", settings={"steps": 30, "rate": 100.0}))
    with pytest.raises(DomainError, match=r"inner step \d+ is (inf|nan) at an inner rate of 100"):
        head_gradient.feature_scores(
            x, y, x, 1, Adaptation(method="head_gradient", settings={"steps": 30, "rate": 100.0})
        )
    for engine in ("loop", "vmap"):
        mapping = meta.maml(tasks=TASKS, inner_steps=3, inner_rate=1e200, batch_norm="none", engine=engine)
        learner, inputs, task = opened(mapping)
        with pytest.raises(DomainError, match=r"the inner loop diverged: the loss at inner step"):
            mapping._loss(learner, inputs, task, 0, engine)


def test_bad_support_sets_and_settings_are_refused() -> None:
    net, x = nn.Linear(2, 3), torch.ones(1, 4, 2)
    with pytest.raises(DataError, match="labels go from 0 to 3"):
        gradient.episode_scores(net, x, torch.tensor([[0, 1, 2, 3]]), x, 3, Adaptation(method="gradient"))
    with pytest.raises(DataError, match="labels go from -1 to 2"):
        head_gradient.feature_scores(x, torch.tensor([[0, 1, 2, -1]]), x, 3, Adaptation(method="head_gradient"))
    with pytest.raises(DomainError, match="3 outputs, the task asks for 2"):
        gradient.episode_scores(net, x, torch.tensor([[0, 1, 0, 1]]), x, 2, Adaptation(method="gradient"))
    with pytest.raises(DomainError, match="3 ways and embeddings of 2, the task has 2 ways"):
        own = {head_gradient.WEIGHT: torch.ones(3, 2), head_gradient.BIAS: torch.ones(3)}
        head_gradient.feature_scores(
            x,
            torch.tensor([[0, 1, 0, 1]]),
            x,
            2,
            Adaptation(method="head_gradient", settings={"head": "learned"}, tensors=own),
        )
    with pytest.raises(SpecError, match="'engine': vmap does not go with batch_norm: per_step"):
        meta.mamlpp(tasks=TASKS, engine="vmap")
    with pytest.raises(SpecError, match="'engine': vmap does not go with checkpointing"):
        meta.maml(tasks=TASKS, engine="vmap", checkpointing=True)
    with pytest.raises(SpecError, match="'freeze'"):
        meta.maml(tasks=TASKS, freeze=True)
    with pytest.raises(DomainError, match=r"no adapters.*adapt\.lora"):
        meta.maml(tasks=TASKS, adapts="adapters", steps=1)(network())
    with pytest.raises(SpecError, match="'head_rate': the head does not adapt"):
        meta.boil(tasks=TASKS, head_rate=0.5)
    with pytest.raises(SpecError, match="head"):
        meta.boil(tasks=TASKS, head="zero")  # pyright: ignore[reportArgumentType]


# --------------------------------------------------------------------------------------------------------------------------- ANIL


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("head", ["zero", "learned"])
def test_the_analytic_head_is_the_general_inner_loop_over_the_head(first_order: bool, head: Any) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Tanh()).double()
    x, q = torch.randn(2, 9, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    y, wanted = torch.tensor([[0, 1, 2] * 3, [2, 1, 0] * 3]), torch.tensor([[0, 1, 2, 0, 1], [1, 1, 0, 2, 2]])
    last = nn.Linear(6, 3).double()
    settings = head_gradient.settings_of(steps=4, rate=0.3, head=head, first_order=first_order)
    own = {head_gradient.WEIGHT: last.weight, head_gradient.BIAS: last.bias} if head == "learned" else {}
    parameters = [*body.parameters(), *own.values()]
    learner = Adaptation(method="head_gradient", settings=settings, tensors=own)
    scores = task_scores(body, torch.cat([x, q], 1), y, 5, 3, learner)
    found = torch.autograd.grad(cross_entropy(scores.flatten(0, 1), wanted.flatten()), parameters)

    whole = nn.Sequential(*body, last) if head == "learned" else body
    call = inner_loop.FunctionalModule(whole, inner_loop.Inner(rate=0.3, adapts="head", head=head), {})
    losses = [
        inner_loop.task_loss(
            call, dict(whole.named_parameters()), x[i], y[i], q[i], wanted[i], 3,
            weights=[0, 0, 0, 0, 1], second_order=not first_order,
        )
        for i in range(2)
    ]  # fmt: skip
    general = torch.autograd.grad(torch.stack(losses).mean(), parameters)
    for a, b in zip(found, general, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert float(found[0].abs().max()) > 1e-4


def test_the_analytic_head_for_numbers() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(1, 7, 4, dtype=torch.float64), torch.randn(1, 7, 2, dtype=torch.float64)
    weight, bias = (torch.zeros(*size, dtype=torch.float64, requires_grad=True) for size in ((2, 4), (2,)))
    for _ in range(3):
        slopes = torch.autograd.grad(mse_loss(linear(x[0], weight, bias), y[0]), (weight, bias))
        weight, bias = (
            at.detach().sub(0.1 * slope).requires_grad_() for at, slope in zip((weight, bias), slopes, strict=True)
        )
    settings = head_gradient.settings_of(steps=3, rate=0.1, head="zero", first_order=False)
    found = head_gradient.head(x[0], y[0], 2, Adaptation(method="head_gradient", settings=settings))
    torch.testing.assert_close(found[0], weight.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1], bias.detach(), rtol=0, atol=1e-12)


class _Adapting(nn.Module):
    """The map support → head, and scores."""

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        settings = head_gradient.settings_of(steps=3, rate=0.5, head="zero", first_order=False)
        return head_gradient.feature_scores(
            support, labels, query, 3, Adaptation(method="head_gradient", settings=settings)
        )


def test_the_analytic_head_is_exported() -> None:
    import onnxruntime

    torch.manual_seed(0)
    given = torch.randn(1, 6, 4), torch.tensor([[0, 1, 2, 2, 1, 0]]), torch.randn(1, 5, 4)
    program: Any = torch.onnx.export(_Adapting().eval(), given, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [part.name for part in session.get_inputs()]
    out: Any = session.run(None, {name: value.numpy() for name, value in zip(names, given, strict=True)})
    np.testing.assert_allclose(out[0], _Adapting()(*given).numpy(), atol=1e-5)


def test_anil_begins_at_a_head_of_zeros() -> None:
    learner, _, _ = meta.anil(tasks=TASKS).learner(network(), context())
    assert {name: tuple(tensor.shape) for name, tensor in learner.tensors.items()} == {
        head_gradient.WEIGHT: (WAYS, 32),
        head_gradient.BIAS: (WAYS,),
    }
    assert not any(tensor.any() for tensor in learner.tensors.values())


def test_anil_goes_on_from_the_head_it_has() -> None:
    first = context().apply(meta.anil(tasks=TASKS, steps=3), network())
    again = context().apply(meta.anil(tasks=TASKS, steps=1, learning_rate=1e-9), first)
    assert first.adaptation is not None
    assert again.adaptation is not None
    before, after = (part.adaptation.tensors[head_gradient.WEIGHT] for part in (first, again))  # type: ignore[union-attr]
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- rates and memories


def test_metasgd_learns_a_rate_for_every_parameter() -> None:
    mapping = meta.metasgd(tasks=TASKS, inner_steps=2, inner_rate=0.25, tasks_per_step=2)
    _, found, learner = outer_gradient(mapping)
    _, wanted = by_hand(mapping, descent(2, 0.25))
    assert_same(found, wanted)  # all rates are 0.25 at first
    rates = {name for name in found if name.startswith("own.")}
    assert len(rates) == len(list(learner.network.parameters()))
    learner, inputs, task = opened(mapping)
    name, at, by = "own.conv/weight", (0, 0, 1, 1), 1e-6
    numbers: list[float] = []
    for sign in (1, -1):
        moved = copy.deepcopy(learner)
        with torch.no_grad():
            dict(moved.named_parameters())[name][at] += sign * by
        numbers.append(mapping._loss(moved, inputs, task, 0, "loop").item())
    assert float(found[name][at]) == pytest.approx((numbers[0] - numbers[1]) / (2 * by), rel=1e-5, abs=1e-9)


def test_mamlpp_weights_rates_and_order() -> None:
    mapping = meta.mamlpp(tasks=TASKS, steps=100, inner_steps=4, multi_step=0.2, cheap=0.5)
    np.testing.assert_allclose(mapping.weights(0), [0, 0.25, 0.25, 0.25, 0.25])
    np.testing.assert_allclose(mapping.weights(10), [0, 0.125, 0.125, 0.125, 0.625])
    np.testing.assert_allclose(mapping.weights(20), [0, 0, 0, 0, 1])
    assert [mapping.second_order(step) for step in (0, 49, 50, 99)] == [False, False, True, True]
    assert sum(mapping.weights(7)) == pytest.approx(1)
    moved = layerwise.update(
        {"w": torch.ones(1)}, {"w": torch.ones(1)}, 9, {}, {"~rates.w": torch.tensor([0.1, 0.2])}, {}
    )
    assert moved["w"].item() == pytest.approx(0.8)


def test_mamlpp_has_norms_of_each_step() -> None:
    mapping = meta.mamlpp(tasks=TASKS, inner_steps=2, inner_rate=0.2, cheap=0.0, multi_step=1.0, tasks_per_step=2)
    _, found, learner = outer_gradient(mapping)
    scales = {name for name in found if name.startswith("own.norm/weight@")}
    assert len(scales) == 3
    assert "network.norm.weight" not in found
    assert {name for name in learner.tensors if name.startswith("~rates.norm")} == set()
    assert "~rates.conv.weight" in learner.tensors
    result = context().apply(meta.mamlpp(tasks=TASKS, steps=2, inner_steps=2), network())
    assert result.adaptation is not None
    assert "norm.running_var@2" in result.adaptation.tensors
    small = prune.magnitude(macs=0.6)(context().apply(meta.mamlpp(tasks=TASKS, steps=2, inner_steps=1), _deep()))
    assert small.adaptation is not None
    width = small.tensors["features.0.1.weight"].shape
    assert small.adaptation.tensors["features.0.1.weight@0"].shape == width
    assert small.adaptation.tensors["features.0.1.running_mean@1"].shape == width
    evaluate.episodes(tasks=_digits(), episodes=3)(small)


def test_alfa_rule() -> None:
    torch.manual_seed(0)
    point = {"a": torch.randn(3, dtype=torch.float64), "b": torch.randn(2, 2, dtype=torch.float64)}
    slopes = {name: torch.randn_like(value) for name, value in point.items()}
    own = {n: t.double() for n, t in alfa.first_tensors(dict.fromkeys(point, 0.3), steps=2, decay=0.1).items()}
    own["~alfa.second.weight"] = torch.randn(4, 4, dtype=torch.float64)
    state = torch.stack([point["a"].mean(), point["b"].mean(), slopes["a"].mean(), slopes["b"].mean()])
    hidden = torch.clamp(own["~alfa.first.weight"] @ state + own["~alfa.first.bias"], min=0)
    given = own["~alfa.second.weight"] @ hidden + 1
    moved = alfa.update(point, slopes, 1, {}, own, {})
    for place, name in enumerate(point):
        wanted = (1 - 0.1 * given[2 + place]) * point[name] - 0.3 * given[place] * slopes[name]
        torch.testing.assert_close(moved[name], wanted, rtol=0, atol=1e-7)
    with pytest.raises(DomainError, match="2 tensors of parameters, the network has 1"):
        alfa.update({"a": point["a"]}, slopes, 0, {}, own, {})


def test_adam_without_momentum_is_that_of_torch() -> None:
    torch.manual_seed(0)
    at = torch.randn(5, dtype=torch.float64)
    theirs = nn.Parameter(at.clone())
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=(0.0, 0.999))
    memory: dict[str, Tensor] = {}
    for step in range(4):
        slope = torch.randn(5, dtype=torch.float64)
        theirs.grad = slope.clone()
        optimizer.step()
        at = adam.update({"w": at}, {"w": slope}, step, {"w": 0.01}, {}, memory)["w"]
        torch.testing.assert_close(at, theirs.detach(), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------ Reptile and iMAML


def test_reptile_walks_towards_the_adapted_weights() -> None:
    fields = {"inner_optimizer": "sgd", "inner_rate": 0.1, "inner_batch": None, "inner_steps": 3}
    mapping = meta.reptile(tasks=TASKS, tasks_per_step=2, **fields)  # pyright: ignore[reportArgumentType]
    _, found, _ = outer_gradient(mapping)
    learner, inputs, task = opened(mapping)
    module = learner.network.train()
    start = {name: value.detach() for name, value in module.named_parameters()}
    labels = np.concatenate([task.support_labels, task.query_labels], 1)
    walks: list[Start] = []
    for number in range(2):
        at = {name: value.clone().requires_grad_() for name, value in start.items()}
        for _ in range(3):
            loss = cross_entropy(functional_call(module, at, (inputs[number],)), torch.tensor(labels[number]))
            slopes = torch.autograd.grad(loss, list(at.values()))
            at = {n: (v - 0.1 * g).detach().requires_grad_() for (n, v), g in zip(at.items(), slopes, strict=True)}
        walks.append({name: start[name] - at[name].detach() for name in start})
    wanted = {f"network.{name}": (walks[0][name] + walks[1][name]) / 2 for name in start}
    assert_same(found, wanted)


def test_reptile_goes_through_all_samples_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = meta.reptile(tasks=TASKS, inner_steps=6, inner_batch=5, tasks_per_step=1)
    drawn: list[Tensor] = []
    whole = inner_loop.inner_path

    def watched(*given: Any, draw: Callable[[int], Tensor], **named: Any) -> Any:
        drawn.extend(given[3][draw(step)] for step in range(6))
        return whole(*given, draw=draw, **named)

    monkeypatch.setattr(inner_loop, "inner_path", watched)
    outer_gradient(mapping)
    assert [len(labels) for labels in drawn] == [5] * 6
    for half in (drawn[:3], drawn[3:]):
        assert torch.cat(half).bincount().tolist() == [5, 5, 5]
    assert torch.cat(drawn[:3]).tolist() not in ([0] * 5 + [1] * 5 + [2] * 5,)


def test_conjugate_gradients_solve() -> None:
    torch.manual_seed(0)
    root = torch.randn(6, 6, dtype=torch.float64)
    matrix, right = root @ root.T + torch.eye(6), torch.randn(6, dtype=torch.float64)

    def product(vector: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = matrix @ torch.cat([vector["a"], vector["b"]])
        return {"a": whole[:2], "b": whole[2:]}

    found = conjugate_gradient(product, {"a": right[:2], "b": right[2:]}, 12)
    torch.testing.assert_close(
        torch.cat([found["a"], found["b"]]), torch.linalg.solve(matrix, right), rtol=0, atol=1e-9
    )


def test_imaml_where_the_loss_is_smooth_but_not_convex() -> None:
    """At a solution that a stronger proximal term makes unique, against the path differentiated step by step."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3)).double()
    task = (*(torch.randn(6, 8, dtype=torch.float64), torch.tensor([0, 1, 2] * 2)),) * 2
    mapping = meta.imaml(tasks=TASKS, proximal=2.0, inner_rate=0.1, inner_steps=200, solver_steps=30, damping=0.0)
    learner = Learner(net, kinds.Adaptation(method="gradient"))
    gradients: list[tuple[Tensor, ...]] = []
    for loss in (type(mapping).task_loss, GradientBased.task_loss):
        parameters = dict(learner.named_parameters())
        gradients.append(torch.autograd.grad(loss(mapping, learner, parameters, task, 3, 0), list(parameters.values())))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_imaml_is_the_exact_derivative_of_the_solution() -> None:
    """Softmax regression with a proximal term is strongly convex: its solution is differentiated by a long unrolled path."""
    torch.manual_seed(0)
    net = nn.Linear(4, 3).double()
    x, q = torch.randn(8, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    y, wanted = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    strength = 0.5
    start = dict(net.named_parameters())

    def objective(at: Start) -> Tensor:
        near = sum((at[name] - start[name]).square().sum() for name in at)
        return cross_entropy(linear(x, at["weight"], at["bias"]), y) + strength / 2 * near

    at: Start = {name: value * 1 for name, value in start.items()}
    for _ in range(120):
        slopes = torch.autograd.grad(objective(at), list(at.values()), create_graph=True)
        at = {name: value - 0.5 * slope for (name, value), slope in zip(at.items(), slopes, strict=True)}
    loss = cross_entropy(linear(q, at["weight"], at["bias"]), wanted)
    exact = torch.autograd.grad(loss, list(start.values()))
    mapping = meta.imaml(tasks=TASKS, proximal=strength, inner_rate=0.5, inner_steps=120, solver_steps=15, damping=0.0)
    learner = Learner(net, kinds.Adaptation(method="gradient"))
    for functional in (False, True):
        parameters = dict(learner.named_parameters())

        def one(*task: Tensor, at: Start = parameters, functional: bool = functional) -> Tensor:
            return mapping.task_loss(learner, at, task, 3, 0, functional=functional)

        batch = (x[None], y[None], q[None], wanted[None])
        value = torch.func.vmap(one)(*batch).sum() if functional else one(x, y, q, wanted)
        found = torch.autograd.grad(value, list(parameters.values()))
        assert value.item() == pytest.approx(loss.item(), abs=1e-9)
        for a, b in zip(found, exact, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


# -------------------------------------------------------------------------------------------------------------------------- in use


def _digits() -> Any:
    return datasets.episodes(data=datasets.digits(size=16), ways=WAYS, shots=2, queries=3)


def _deep() -> Network:
    from mapsto import networks

    return networks.conv4(channels=1, size=16, width=6, blocks=3)(seed=0)


SMALL: list[tuple[str, dict[str, Any]]] = [
    ("maml", {"inner_steps": 2}),
    ("anil", {}),
    ("boil", {}),
    ("metasgd", {"inner_steps": 2}),
    ("reptile", {"test_steps": 3}),
    ("mamlpp", {"inner_steps": 2}),
    ("imaml", {"inner_steps": 2}),
    ("alfa", {"inner_steps": 2}),
]


@pytest.mark.parametrize(("name", "fields"), SMALL, ids=lambda part: str(part))
def test_learners_are_saved_loaded_pruned_and_evaluated(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    engine = {} if name == "anil" else {"engine": "loop"}
    ctx = context()
    learner = ctx.apply(getattr(meta, name)(tasks=_digits(), steps=2, **engine, **fields), _deep())
    assert learner.adaptation is not None
    store = Store(tmp_path)
    loaded = store.load(store.save(learner))
    judge = evaluate.episodes(tasks=_digits(), episodes=4)
    wanted = ctx.apply(judge, learner).metrics["loss"].value
    assert context().apply(judge, loaded).metrics["loss"].value == wanted
    small = prune.magnitude(macs=0.6)(loaded)
    assert small.tensors["features.0.0.weight"].shape[0] < 6
    assert np.isfinite(ctx.apply(judge, small).metrics["loss"].value)


def test_steps_in_use_may_be_more_than_in_training() -> None:
    learner = context().apply(meta.maml(tasks=_digits(), steps=1, inner_steps=1, test_steps=7, engine="loop"), _deep())
    assert learner.adaptation is not None
    assert learner.adaptation.settings["steps"] == 7
    episode = _digits().open()[0]
    x, q = (torch.tensor(part).float()[None] / 255 for part in (episode.support, episode.query))
    x, q = (nn.functional.interpolate(part[0], 16)[None] for part in (x, q))
    y = torch.tensor(episode.support_labels)[None]
    own = (WAYS, learner.adaptation)
    assert gradient.path_scores(learner.module(), x, y, q, *own).shape == (8, 1, q.shape[1], WAYS)


def test_a_learner_learns() -> None:
    tasks = datasets.episodes(data=Corners(per_class=20), ways=WAYS, shots=1, queries=4)
    judge = evaluate.episodes(tasks=datasets.episodes(data=Corners(seed=1), ways=WAYS, shots=1, queries=4), episodes=40)
    for mapping in (
        meta.maml(tasks=tasks, steps=40, inner_steps=2, learning_rate=0.01, engine="loop"),
        meta.anil(tasks=tasks, steps=40, learning_rate=0.01),
    ):
        found = context().apply(judge, context().apply(mapping, network())).metrics["accuracy"].value
        assert found > 90, mapping.name


def test_anil_on_waves() -> None:
    waves = datasets.sinusoids(shots=10, queries=10, phase=(0.0, 0.5))
    network = networks.mlp()(seed=0)
    judge = evaluate.episodes(tasks=datasets.sinusoids(shots=10, queries=10, phase=(0.0, 0.5), seed=1), episodes=40)

    def error(steps: int) -> float:
        train = meta.anil(
            tasks=waves, steps=steps, tasks_per_step=10, inner_rate=0.05, inner_steps=3, learning_rate=0.01
        )
        return judge(train(network)).metrics["error"].value

    assert error(150) < 0.5 * error(1)
