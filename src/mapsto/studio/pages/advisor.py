"""The advisor: which recipe to try on data, why, on which past runs that leans, and how sure it is."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from mapsto import discovery
from mapsto.errors import DataError, MapstoError, SpecError, command, nearest
from mapsto.studio.errors import NotThere
from mapsto.studio.site import Page, Studio, form, render, studio_of
from mapsto_runtime.shown import few, short

if TYPE_CHECKING:
    from mapsto.search.advisor.advice import Advice

__all__ = ["PAGE"]

router = APIRouter()
PAGE = Page(router=router, title="Advisor", path="/advise")

_MOST_KEPT = 32
_MOST_PROPOSALS = 20
_recipes: OrderedDict[str, list[str]] = OrderedDict()
"""The recipes of the last answers, by an id that is on their page."""


class Fields(NamedTuple):
    """What is asked."""

    data: str = ""
    target: str = ""
    text: str = ""
    stream: bool = False
    limit: str = ""
    most: int = 5


@router.get("/advise")
def asking(request: Request) -> Response:
    """The form; filled in where data were given when the studio was started."""
    studio = studio_of(request)
    fields = Fields(data=str(studio.data or ""), target=studio.target or "")
    return _page(request, fields)


@router.post("/advise")
async def answered(request: Request) -> Response:
    """The answer for the data of the form, or why there is none."""
    given = await form(request)
    count = given.get("count", "5").strip()
    fields = Fields(
        data=given.get("data", "").strip(),
        target=given.get("target", "").strip(),
        text=given.get("text", "").strip(),
        stream=given.get("stream") == "yes",
        limit=given.get("limit", "").strip(),
        most=min(int(count), _MOST_PROPOSALS) if count.isdecimal() and len(count) < 4 and int(count) else 5,
    )
    try:
        advised = await run_in_threadpool(_advised, studio_of(request), fields)
    except MapstoError as error:
        return _page(request, fields, error=error)
    return _page(request, fields, advised=advised)


@router.get("/advise/recipe/{answer}/{number}")
def recipe(answer: str, number: int) -> Response:
    """A recipe of an answer, as a file."""
    known = _recipes.get(answer, [])
    if not 0 <= number < len(known):
        raise NotThere("this answer is no longer kept", hint="ask again")
    headers = {"content-disposition": f'attachment; filename="advised_{number + 1}.yaml"'}
    return Response(known[number], media_type="application/yaml", headers=headers)


def _page(
    request: Request, fields: Fields, *, advised: Advice | None = None, error: MapstoError | None = None
) -> Response:
    from mapsto.search.advisor.advice import tree_of

    tree: dict[str, Any] | None = None
    answer, texts = "", list[str]()
    if advised is not None:
        tree = tree_of(advised)
        texts = [advised.recipe(number) for number in range(len(advised.proposals))]
        answer = secrets.token_urlsafe(9)
        _recipes[answer] = texts
        while len(_recipes) > _MOST_KEPT:
            _recipes.popitem(last=False)
    return render(
        request,
        "advise.html.j2",
        code=200 if error is None else 422,
        title="Advisor",
        fields=fields,
        error=error,
        tree=tree,
        texts=texts,
        answer=answer,
        lines=[command("mapsto run {recipe}", recipe=f"advised_{number + 1}.yaml") for number in range(len(texts))],
        sets=sorted(discovery.entries("data")),
    )


def _advised(studio: Studio, fields: Fields) -> Advice:
    """What ``mapsto advise`` says. Raises `SpecError` or `DataError` where it says nothing."""
    from mapsto.search.advisor import runs as lists
    from mapsto.search.advisor.advice import advice, described, known_runs
    from mapsto.search.advisor.question import goal_of, question_of
    from mapsto.store import Store

    place = _place(studio, fields.data)
    store = Store(studio.store)
    question = question_of(place, fields.target or None, fields.text or None, stream=fields.stream)
    goal = goal_of(fields.limit or None)
    task, missing = described(question, store=store)
    known = lists.merged([known_runs(store), lists.shipped()])
    return advice(question, task, known, goal=goal, count=fields.most, missing=missing)


def _place(studio: Studio, text: str) -> str:
    """The data that were named: a data set by its name, or a path within the folders that the studio may read.

    Raises
    ------
    SpecError
        Nothing is named, or a path is elsewhere.
    """
    if not text:
        raise SpecError("no data are given", where="data", hint="give a folder, a file or the name of a data set")
    if re.fullmatch(r"[a-z0-9_]+", text) and not Path(text).exists():
        known = discovery.entries("data")
        if text not in known:
            raise SpecError(
                f"'{short(text)}' is neither a path nor a data set", where="data", hint=nearest(text, known)
            )
        return text
    allowed = [Path.cwd(), *(studio.folders.roots if studio.folders else ()), *([studio.data] if studio.data else ())]
    try:
        path = Path(text).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise SpecError(f"this is no path ({error})", where="data", hint="give one that exists") from error
    roots = [each.resolve() for each in allowed]
    if not any(path.is_relative_to(root) for root in roots):
        raise SpecError(
            f"'{short(text, 80)}' lies outside of what the studio reads",
            where="data",
            hint=f"it reads {few([str(root) for root in roots])}; start it with --data for others",
        )
    if not path.exists():
        raise DataError("there is no such file or folder", where=short(text, 80), hint="check the path")
    return str(path)
