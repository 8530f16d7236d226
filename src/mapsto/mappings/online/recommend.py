"""Recommendation from a stream of ratings or of clicks: members learn each event, and each user follows those that are right for it.

Ratings: a baseline of biases, biased matrix factorisation, a small network, and a blend of them. Clicks: popularity, what follows what,
matrix factorisation, and a network over the items of late. Weights over members begin for a new user as those of all, and become its own
with each event, ``w_um ∝ exp(G_m + D_um)`` with faded sums of log-likelihoods (Raftery, Kárný and Ettler, "Online Prediction under Model
Uncertainty via Dynamic Model Averaging", 2010).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from mapsto.errors import SpecError
from mapsto.kinds import ColumnType, Network, Package, Stream
from mapsto.nn.online.loop import Online

if TYPE_CHECKING:
    from mapsto.nn.online.learning import StreamLearner, Task

__all__ = ["Recommend"]


class Recommend(Online):
    """Ratings, a stream of values with a column of users and one of items; or clicks, of classes, with a column of users alone.

    The live learner's `recommended(user, count)` gives a user's best items, without those that the user has had.

    >>> from mapsto import streams
    >>> model = Recommend(stream=streams.tastes(events=2000))(None)
    >>> best = model.open().recommended("u1", 3)
    >>> len(best), best[0][1] > 4.0
    (3, True)
    """

    user: str | None = None
    """The column of users; by default `user` or `user_id`, or the only column of words that can be it."""
    item: str | None = None
    """The column of items, of ratings; by default `item` or `item_id`, or the only column of words beside the users'."""
    members: tuple[Literal["baseline", "sequence", "factors", "neural"], ...] = Field(
        default=("baseline", "sequence", "factors", "neural"), min_length=1
    )
    """Who answers: `baseline` is biases for ratings and popularity for clicks; `sequence` is for clicks alone."""
    factors: int = Field(default=12, ge=1, le=256)
    """Numbers of an embedding."""
    regularisation: float = Field(default=5.0, gt=0)
    """Of ratings: the precision of factors before the first label; more of it keeps them nearer to 0."""
    change: float = Field(default=1e-4, ge=0)
    """Of ratings: the variance that tastes gain an event; more of it forgets faster."""
    rate: float = Field(default=0.1, gt=0)
    """Of AdaGrad, for clicks; the network for ratings learns at a tenth of it."""
    liked: float | None = None
    """From which rating on an item counts as liked, and is ranked for hit rate and NDCG; by default the mean of all so far."""
    drawn: int = Field(default=99, ge=1)
    """Items, not rated by the user, among which one that is liked is ranked."""
    catalogue: int = Field(default=20_000, ge=1, lt=2**31)
    """Items that are kept; an event of one beyond them is set aside."""
    most_users: int = Field(default=100_000, ge=1)
    """Users that are kept; for one more the one that was idle longest is given up."""
    history: int = Field(default=500, ge=1)
    """The last items of a user, which are not recommended again."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the first embeddings, and of what is drawn."""

    version: ClassVar[int] = 2
    tasks: ClassVar[tuple[Task, ...]] = ("values", "classes")

    def __post_init__(self) -> None:
        if len({*self.members}) < len(self.members):
            raise SpecError("a member is named twice", where="online.recommend.members", hint="name each once")

    contract: ClassVar[dict[str, Any]] = {
        "stream": {"tastes": {"events": 300, "users": 60, "items": 40, "label_delay": 20}},
        "every": 100,
        "factors": 4,
        "most_users": 30,
        "late": 50,
    }

    @staticmethod
    def contract_stream(events: int) -> Stream:
        """What its bounded state is judged on."""
        from mapsto.data.streams.tastes import Tastes

        return Tastes(events=events, users=60, items=40)

    @classmethod
    def _learner(cls, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task) -> StreamLearner:
        from mapsto.nn.online.recommend.clicks import ClickRecommender
        from mapsto.nn.online.recommend.learner import Fields
        from mapsto.nn.online.recommend.ratings import RatingRecommender

        given = Fields(**{name: fields[name] for name in Fields.__dataclass_fields__})
        if task == "values" and given.members == ("sequence",):
            raise SpecError("is a member for clicks alone", where="online.recommend.members", hint="name another")
        return (RatingRecommender if task == "values" else ClickRecommender)(types, given)

    @classmethod
    def _standing(
        cls, base: Network | Package | None, fields: Mapping[str, Any], types: Mapping[str, ColumnType], task: Task
    ) -> StreamLearner:
        if base is not None:
            raise SpecError("stands on no network", where="online.recommend", hint="leave the step before it out")
        return cls._learner(fields, types, task)
