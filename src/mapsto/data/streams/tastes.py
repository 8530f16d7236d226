"""Users who rate or choose items by latent tastes that drift, of whom and of which new ones arrive over the whole stream.

User u at event n likes item i by ``s = μ + b_u + b_i + a p_u(n)·q_i + ε``: a rating is s rounded into 1 to 5, and of a few items that the
user comes across the one that pleases most is met. Tastes turn, ``p_u(n) = cos(θ) p + sin(θ) p'`` with ``θ = 2π · turns · n / events`` at
the user's own pace, and at `changes` all users get others at once. Popularity and activity have long tails, as in MovieLens (Harper and
Konstan, "The MovieLens Datasets", 2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from mapsto.data.streams._generated import Drawn, Generated
from mapsto.kinds import ColumnType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Tastes"]

_MEAN = 3.0
_TASTE = 0.9
"""How far tastes move a rating, as a standard deviation."""
_TAIL = 2.0
"""A user of N is number ``N u²`` for u drawn from 0 to 1; an item likewise: the first ones come most often."""
_SPELL = 5
"""Events of a user, on average, over which an interest holds."""


class Tastes(Generated):
    """Ratings of columns `user` and `item`, or clicks of a column `user`, whose label is the item.

    >>> block = next(Tastes(events=100).open())
    >>> sorted(block.x), float(block.y.min()), float(block.y.max())
    (['item', 'user'], 1.0, 5.0)
    >>> next(Tastes(feedback="clicks").open()).y[:3].tolist()
    ['i24', 'i42', 'i39']
    """

    feedback: Literal["ratings", "clicks"] = "ratings"
    """Whether labels are ratings, numbers from 1 to 5, or the items that are chosen."""
    users: int = Field(default=500, ge=1)
    """Users, of whom some arrive over the stream."""
    items: int = Field(default=300, ge=1)
    """Items, of which some arrive over the stream."""
    factors: int = Field(default=4, ge=1)
    """Dimensions of a taste."""
    noise: float = Field(default=0.6, ge=0)
    """The standard deviation of ε, in points of a rating."""
    arriving: float = Field(default=0.5, ge=0, le=1)
    """The share of users and of items that are not there at the beginning, and arrive evenly up to the end."""
    turns: float = Field(default=0.0, ge=0)
    """How often a user's taste turns round over the stream, on average."""
    changes: tuple[int, ...] = ()
    """Events at which all tastes change at once, counted from 0 and rising."""
    candidates: int = Field(default=4, ge=1)
    """Items that a user comes across, of which the one that pleases most is met; 1: tastes do not decide what is met."""

    contract: ClassVar[dict[str, Any]] = {"events": 300, "turns": 0.5, "changes": [150]}

    @property
    def task(self) -> Literal["classes", "values"]:
        return "values" if self.feedback == "ratings" else "classes"

    def columns(self) -> Mapping[str, ColumnType]:
        names = ("user", "item") if self.feedback == "ratings" else ("user",)
        return dict.fromkeys(names, "word")

    def draw(self, rows: NDArray[np.int64], rng: np.random.Generator) -> Drawn:
        import numpy as np

        world, count = self._world, len(rows)
        users = _met(rng.random(count), self._there(rows, self.users))
        seen = _met(rng.random((count, self.candidates)), self._there(rows, self.items)[:, None])
        tastes = self._tastes(rows, users)
        liking = np.einsum("nk,nck->nc", tastes, world.items[seen])
        chance = rng.gumbel(size=liking.shape) * 0.5
        best = (liking + chance).argmax(1)
        items, liked = seen[np.arange(count), best], liking[np.arange(count), best]
        x = {"user": world.user_names[users]}
        if self.feedback == "clicks":
            return x, world.item_names[items]
        x["item"] = world.item_names[items]
        score = _MEAN + world.user_biases[users] + world.item_biases[items] + _TASTE * liked
        return x, np.clip(np.rint(score + self.noise * rng.normal(size=count)), 1.0, 5.0)

    def _there(self, rows: NDArray[np.int64], most: int) -> NDArray[np.float64]:
        """How many have arrived by events of these numbers."""
        import numpy as np

        share = 1.0 - self.arriving * (1.0 - np.minimum(rows / self.events, 1.0))
        return np.maximum(np.ceil(most * share), 1.0)

    def _tastes(self, rows: NDArray[np.int64], users: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each event's user at that event, (n, factors)."""
        import numpy as np

        world = self._world
        epoch = np.searchsorted(np.array(self.changes, np.int64), rows, side="right")
        angle = 2.0 * np.pi * self.turns * world.paces[users] * (rows / self.events)
        begin, end = world.users[epoch, users, 0], world.users[epoch, users, 1]
        slow = np.cos(angle)[:, None] * begin + np.sin(angle)[:, None] * end
        if self.feedback == "ratings":
            return slow
        # who chooses follows an interest for a while, so that what is chosen next is like what was chosen last
        spell = rows // (_SPELL * self.users)
        interest = world.interests[spell % len(world.interests), users]
        return 0.5 * slow + 1.5 * world.items[interest]

    @cached_property
    def _world(self) -> _World:
        import numpy as np

        rng = np.random.default_rng((self.seed, 0, 1))
        names = [np.array([f"{kind}{n + 1}" for n in range(count)], dtype=object) for kind, count in self._counts]
        scale = self.factors**-0.5
        items = rng.normal(size=(self.items, self.factors))
        item_biases = rng.normal(size=self.items) * 0.4
        interests = rng.integers(0, self.items, (64, self.users))
        paces = np.exp(0.5 * rng.normal(size=self.users))
        user_biases = rng.normal(size=self.users) * 0.4
        users = rng.normal(size=(len(self.changes) + 1, self.users, 2, self.factors)) * scale
        return _World(names[0], names[1], users, items, user_biases, item_biases, paces, interests)

    @property
    def _counts(self) -> tuple[tuple[str, int], ...]:
        return (("u", self.users), ("i", self.items))


class _World(NamedTuple):
    user_names: NDArray[Any]
    item_names: NDArray[Any]
    users: NDArray[np.float64]
    """(epochs, users, 2, factors): where a taste begins, and where it is after a quarter of a turn."""
    items: NDArray[np.float64]
    """(items, factors)."""
    user_biases: NDArray[np.float64]
    item_biases: NDArray[np.float64]
    paces: NDArray[np.float64]
    """By user, how much faster than others a taste turns."""
    interests: NDArray[np.int64]
    """(spells, users): an item that the user looks for the like of."""


def _met(drawn: NDArray[np.float64], there: NDArray[np.float64]) -> NDArray[np.int64]:
    """Numbers below `there`, the first most often."""
    import numpy as np

    return np.minimum((there * drawn**_TAIL).astype(np.int64), there.astype(np.int64) - 1)
