"""Drop channels at random: the baseline that a criterion has to beat.

``I_c ~ U(0, 1)``, drawn anew for each seed; after enough fine-tuning it comes surprisingly close to informed choices (Mittal et
al., "Recovering from Random Pruning: On the Plasticity of Deep Convolutional Neural Networks", 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mapsto.context import Context
from mapsto.kinds import Network
from mapsto.nn.prune.budget import Budgeted
from mapsto.nn.prune.criterion import Criterion

if TYPE_CHECKING:
    from mapsto.nn.prune.structured import Importance

__all__ = ["Random"]


class Random(Budgeted, Criterion):
    """The network with channels dropped at random until the budget is met.

    Raises `SpecError` unless exactly one budget is given, and `DomainError` for a network that is quantized, has nothing to
    prune, or cannot be made as small.

    >>> from mapsto import networks
    >>> big = networks.vgg(plan=((8, 8), (16,)), channels=1, size=16, classes=10)(seed=0)
    >>> first, again, other = (Random(macs=0.5)(big, seed=seed).edits for seed in (1, 1, 2))
    >>> first == again, first == other
    (True, False)
    """

    contract: ClassVar[dict[str, Any]] = {"macs": 0.5}

    def importance(self, value: Network, ctx: Context) -> Importance:
        return lambda _, groups: {
            group.name: ctx.random("channels", group.name).random(group.channels) for group in groups
        }
