"""Learn an embedding in which a query is like the support samples of its class: their labels, weighted by likeness, are the answer.

``p(k | q) = Σ_i softmax_i(s · cos(f(q), f(x_i))) [y_i = k]`` over the support set, and the loss is ``−log p(label | q)`` (Vinyals et al.,
"Matching Networks for One Shot Learning", 2016; without full context embeddings).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from mapsto.kinds import Adaptation, Network
from mapsto.nn.meta.outer_loop import Episodic

if TYPE_CHECKING:
    from mapsto.nn.meta.learner_module import Learner

__all__ = ["Matching"]


class Matching(Episodic):
    """A learner: the network without its head, trained on episodes, adapting by attention over the support set.

    >>> from mapsto import datasets, evaluate, meta, networks
    >>> digits = datasets.digits(size=16)
    >>> net = networks.conv4(data=digits, width=8, blocks=3)(seed=0)
    >>> tasks = datasets.episodes(data=digits, ways=5, queries=5)
    >>> learner = meta.matching(tasks=tasks, steps=30, learning_rate=0.01)(net, seed=0)
    >>> new = evaluate.episodes(tasks=datasets.episodes(data=digits, ways=5, queries=5, seed=1), episodes=50)
    >>> bool(new(learner).metrics["accuracy"].value > new(net).metrics["accuracy"].value + 5)
    True
    """

    scale: float = Field(default=10.0, gt=0)
    """s, which multiplies the cosine. The paper has 1, by which no answer can be sure; 10 is usual since."""

    def adaptation(self, value: Network, learner: Learner | None) -> Adaptation:
        return Adaptation(method="matching", settings={"scale": self.scale})

    def predicts_values(self) -> bool:
        return True
