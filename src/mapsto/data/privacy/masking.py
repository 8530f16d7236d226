"""Texts without what patterns recognise in them: addresses, numbers of telephones, cards and accounts, and patterns of your own.

The recognizers are presidio's, those alone that work by patterns and checksums: no language model is loaded, nothing is downloaded, and
**names, places and dates of birth are not recognised**. A text is looked at as it is, with what links escape written out, and once more
with wide letters folded, invisible ones left out, and letters outside ASCII as blanks, since a number is a number between Chinese words
too. It is looked at again once it is masked, until nothing is recognised in it.

Reference: Microsoft, "Presidio: Data Protection and De-identification SDK", 2.2.
"""

from __future__ import annotations

import logging
import re
import sys
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.data.privacy.settings import USUAL, Privacy
from mapsto.errors import MapstoError, MissingExtra, SpecError

__all__ = ["Masked", "MaskingError", "TextMasking", "entities"]

_SECONDS = 1.0
"""That one pattern may take for one text."""
_ROUNDS = 8
"""That a text is looked at, at most: with each something is masked."""
_NO_MODEL: Any = None
"""In the place of what a language model says of a text."""
_REMEMBERED = 4096
"""Texts whose masked form is kept in memory: most labels come again and again."""
_ESCAPE = re.compile("%([2-7][0-9A-Fa-f])")
"""A printable letter of ASCII as links write it."""
_FULL_STOP = re.compile("(?<=[A-Za-z0-9])\u3002(?=[A-Za-z0-9])")
"""Between letters of ASCII it parts the names of a domain, as a full stop does."""
_STRICT = ("drop", "mask", "hash")
"""Where two things that are recognised overlap, the earlier of these holds for both."""


class MaskingError(MapstoError):
    """A text cannot be masked, and so must not be stored."""

    exit_code = 1


class Masked(NamedTuple):
    """A text as it may be stored."""

    text: str
    found: tuple[str, ...]
    """What was recognised in it."""
    dropped: bool
    """It must not be stored at all."""


class _Span(NamedTuple):
    start: int
    end: int
    entity: str


_Search = Callable[[str], list[tuple[int, int]]]
"""Where a text holds something."""


class TextMasking:
    """Masks texts as settings say.

    Parameters
    ----------
    pseudonyms
        Under whose key what is hashed gets its pseudonym.

    Raises
    ------
    MissingExtra
        presidio is not installed.
    SpecError
        An entity is not known, or a pattern of the settings recognises what masks are written as.
    """

    def __init__(self, settings: Privacy, pseudonyms: Pseudonyms) -> None:
        self._settings, self._pseudonyms = settings, pseudonyms
        self._searches = _searches(settings)
        self.masked = lru_cache(_REMEMBERED)(self._masked)
        """`Masked` of a text; `distinct` has pseudonyms where masks would be, so that what differs stays so.

        Raises `MaskingError` where a recognizer fails or does not come to an end.
        """
        for entity in settings.entities:
            for action in ("mask", "hash"):
                written = self._written(entity, "a1", action)
                if self._spans(written):
                    raise SpecError(
                        f"the pattern {self._spans(written)[0].entity} recognises '{written}', which a mask is written as",
                        where="privacy: patterns",
                        hint="make it narrower: it may not match capitals, '_', ':' and small letters between < and >",
                    )

    def line(self, text: str) -> str:
        """A line of a log; of one that cannot be masked, or must not be stored, that it was left out."""
        try:
            masked = self._masked(text)
        except MaskingError as error:
            return f"mapsto: a line of the log was left out: {error.what}"
        return (
            f"mapsto: a line of the log was left out: it held {', '.join(masked.found)}"
            if masked.dropped
            else masked.text
        )

    # -- private

    def _masked(self, text: str, *, distinct: bool = False) -> Masked:
        found: dict[str, None] = {}
        for _ in range(_ROUNDS):
            spans = self._spans(text)
            if not spans:
                return Masked(text, tuple(found), False)
            found |= dict.fromkeys(span.entity for span in spans)
            if any(self._settings.entities[span.entity] == "drop" for span in spans):
                return Masked("", tuple(found), True)
            text = self._replaced(text, spans, distinct)
        raise MaskingError(
            f"after {_ROUNDS} rounds something is still recognised in a text",
            where="privacy",
            hint="narrow the patterns",
        )

    def _replaced(self, text: str, spans: list[_Span], distinct: bool) -> str:
        parts: list[str] = []
        at = 0
        for start, end, entity in spans:
            action = self._settings.entities[entity]
            parts += [text[at:start], self._written(entity, text[start:end], "hash" if distinct else action)]
            at = end
        return "".join([*parts, text[at:]])

    def _written(self, entity: str, text: str, action: str) -> str:
        return f"<{entity}:{self._pseudonyms.of(entity, text)}>" if action == "hash" else f"<{entity}>"

    def _spans(self, text: str) -> list[_Span]:
        """What is recognised, in order and without overlaps."""
        spans: set[_Span] = set()
        for view, starts, ends in _views(text):
            for entity, search in self._searches:
                try:
                    found = search(view)
                except Exception as error:  # whatever it is: what could not be looked at is not stored
                    raise MaskingError(
                        f"the recognizer of {entity} failed ({type(error).__name__})",
                        where="privacy",
                        hint="leave that entity out, or report it",
                    ) from error
                spans |= {_Span(starts[start], ends[end - 1], entity) for start, end in found if end > start}
        merged: list[_Span] = []
        for span in sorted(spans, key=lambda each: (each.start, -each.end)):
            if merged and span.start < merged[-1].end:
                last = merged[-1]
                entity = min(last.entity, span.entity, key=lambda each: _STRICT.index(self._settings.entities[each]))
                merged[-1] = _Span(last.start, max(last.end, span.end), entity)
            else:
                merged.append(span)
        return merged


def entities() -> list[str]:
    """Names of what presidio's patterns recognise. Raises `MissingExtra`."""
    return sorted(_recognizers())


class _View(NamedTuple):
    """A text as it is looked at; character i of it stands for the text from ``starts[i]`` to ``ends[i]``."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


def _views(text: str) -> Generator[_View]:
    whole = _View(text, range(len(text)), range(1, len(text) + 1))
    yield whole
    if _ESCAPE.search(text):
        whole = _unescaped(text)
        yield whole
    if whole.text.isascii() and "_" not in whole.text:
        return
    letters: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(whole.text):
        for plain in unicodedata.normalize("NFKC", letter):
            if unicodedata.category(plain) not in ("Cf", "Mn"):
                digit = unicodedata.decimal(plain, None)
                letters.append(plain if digit is None else str(digit))
                places.append(place)
    starts, ends = [whole.starts[place] for place in places], [whole.ends[place] for place in places]
    folded = _FULL_STOP.sub(".", "".join(letters))
    if folded != whole.text:
        yield _View(folded, starts, ends)
    apart = "".join(letter if letter.isascii() and letter != "_" else " " for letter in folded)
    if apart != folded:
        yield _View(apart, starts, ends)


def _unescaped(text: str) -> _View:
    """With ``%40`` as ``@``: addresses stand so in links."""
    letters: list[str] = []
    ends: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(text):
        letters += [*text[at : match.start()], chr(int(match.group(1), 16))]
        ends += [*range(at + 1, match.start() + 1), match.end()]
        at = match.end()
    ends += range(at + 1, len(text) + 1)
    return _View("".join([*letters, *text[at:]]), [0, *ends[:-1]], ends)


def _searches(settings: Privacy) -> list[tuple[str, _Search]]:
    known = _recognizers() if set(settings.entities) - set(settings.patterns) else {}
    found: list[tuple[str, _Search]] = []
    for entity in settings.entities:
        if entity in settings.patterns:
            found.append((entity, _by_pattern(settings.patterns[entity])))
        elif entity in known:
            found += [(entity, _by_recognizer(each(), settings.threshold)) for each in known[entity]]
        else:
            raise SpecError(
                f"there is no entity '{entity}' that patterns recognise",
                where="privacy: entities",
                hint=f"{_nearest(entity, [*known, *settings.patterns])} names and places need a language model, which is not used; "
                f"usual are {', '.join(USUAL)}",
            )
    return found


def _nearest(name: str, known: Sequence[str]) -> str:
    found = get_close_matches(name.upper(), known, 1)
    return f"did you mean {found[0]}?" if found else f"there are {len(known)}, which docs/privacy.md lists;"


def _by_pattern(pattern: str) -> _Search:
    import regex

    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise SpecError(f"'{pattern}' is no regular expression: {error}", where="privacy: patterns") from error
    return lambda text: [match.span() for match in compiled.finditer(text, timeout=_SECONDS)]


def _by_recognizer(recognizer: Any, threshold: float) -> _Search:
    from presidio_analyzer import PatternRecognizer  # pyright: ignore[reportMissingImports]

    names = recognizer.supported_entities
    if not isinstance(recognizer, PatternRecognizer) or type(recognizer).analyze is not PatternRecognizer.analyze:
        return lambda text: [
            (each.start, each.end) for each in recognizer.analyze(text, names, _NO_MODEL) if each.score >= threshold
        ]
    import regex

    # presidio's own loop leaves out a pattern that takes too long, and goes on
    compiled = [
        (regex.compile(each.regex, recognizer.global_regex_flags or 0), each.score) for each in recognizer.patterns
    ]

    def search(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for pattern, own in compiled:
            for match in pattern.finditer(text, timeout=_SECONDS):
                valid, invalid = recognizer.validate_result(match.group()), recognizer.invalidate_result(match.group())
                score = 0.0 if invalid or valid is False else 1.0 if valid else own
                if score >= threshold:
                    found.append(match.span())
        return found

    return search


@lru_cache(1)
def _recognizers() -> Mapping[str, list[Any]]:
    """Makers of presidio's recognizers that work by patterns, by entity."""
    try:
        with _without_models():
            import presidio_analyzer.predefined_recognizers as predefined  # pyright: ignore[reportMissingImports]
            from presidio_analyzer import PatternRecognizer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtra("presidio_analyzer", "privacy", where="privacy") from error
    logging.getLogger("presidio-analyzer").addFilter(_raising)

    class EmailAddresses(predefined.EmailRecognizer):  # pyright: ignore[reportUntypedBaseClass]
        """Of any domain: presidio's asks a list of public suffixes, which it downloads, and so misses those inside a company."""

        def validate_result(self, pattern_text: str) -> bool:
            return True

    phones = (predefined.PhoneRecognizer, predefined.ZaMobileNumberRecognizer, predefined.ZaTelephoneNumberRecognizer)
    maker: Any
    found: dict[str, list[Any]] = {}
    for name in sorted(predefined.__all__):
        each: Any = getattr(predefined, name)
        if not isinstance(each, type) or not issubclass(each, (PatternRecognizer, *phones)):
            continue
        maker = EmailAddresses if each is predefined.EmailRecognizer else each
        for entity in maker().supported_entities:
            found.setdefault(entity, []).append(maker)
    return found


def _raising(record: logging.LogRecord) -> bool:
    """Let what presidio only warns of, a pattern that it skipped since it took too long, be an error."""
    if "timed out" in record.getMessage():
        raise TimeoutError(record.getMessage())
    return False  # nor may it write what it looked at


@contextmanager
def _without_models() -> Generator[None]:
    """Import presidio without torch and transformers, which it would load for models that are not used.

    2 s of CPU instead of 9, 0.1 GB instead of 0.4.
    """
    names = [name for name in ("torch", "transformers") if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            if modules.get(name, ...) is None:
                del modules[name]
