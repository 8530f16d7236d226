"""Nothing that a pattern recognises is left in a masked text, whatever stands around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapsto.data.privacy.pseudonyms import Pseudonyms
from mapsto.data.privacy.settings import Privacy
from mapsto.errors import MissingExtra, SpecError

pytest.importorskip("presidio_analyzer")
from mapsto.data.privacy.masking import MaskingError, TextMasking, entities

KEYS = Pseudonyms(b"k" * 32)
PERSONAL = {
    "EMAIL_ADDRESS": [
        "ann@example.org",
        "ann.b+c@mail.corp.internal",
        "ａｎｎ＠ｅｘａｍｐｌｅ．ｏｒｇ",
        "a\u200bnn@example.org",
        "ann@example\u3002org",
        "ann%40example.org",
        "ann%40example\uff61org",
    ],
    "CREDIT_CARD": ["4111111111111111", "4111 1111 1111 1111", "４１１１１１１１１１１１１１１１", "٤١١١١١١١١١١١١١١١"],
    "IBAN_CODE": ["DE89370400440532013000", "DE89 3704 0044 0532 0130 00"],
    "IP_ADDRESS": ["192.168.17.4"],
    "MAC_ADDRESS": ["00:1A:2B:3C:4D:5E"],
}
AROUND = st.text(st.sampled_from("卡号是 ,;:!?()\"'|\n\tüßéжあ한😀—。、_\u200b\u00ad\u2028"), max_size=12)


@pytest.fixture(scope="module")
def masking() -> TextMasking:
    return TextMasking(Privacy(entities=dict.fromkeys(PERSONAL, "mask")), KEYS)


@pytest.mark.parametrize("entity", PERSONAL)
def test_what_is_recognised_is_gone_whatever_is_around_it(masking: TextMasking, entity: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(text=st.sampled_from(PERSONAL[entity]), before=AROUND, after=AROUND)
    def run(text: str, before: str, after: str) -> None:
        masked = masking.masked(before + text + after)
        assert entity in masked.found
        assert text not in masked.text
        assert f"<{entity}>" in masked.text
        assert masking.masked(masked.text) == (masked.text, (), False), "nothing is left to be recognised"

    run()


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("a@.:-_/<>0123456789 DE卡é\u200b"), max_size=60), distinct=st.booleans())
def test_what_is_masked_is_masked(masking: TextMasking, text: str, distinct: bool) -> None:
    once = masking.masked(text, distinct=distinct)
    again = masking.masked(once.text, distinct=distinct)
    assert (again.text, again.found) == (once.text, ())
    if not once.found:
        assert once.text == text


def test_a_pseudonym_tells_texts_apart_and_says_nothing_without_the_key() -> None:
    privacy = Privacy(entities={"EMAIL_ADDRESS": "hash"})
    one, other = TextMasking(privacy, KEYS), TextMasking(privacy, Pseudonyms(b"l" * 32))
    ann = one.masked("ann@example.org").text
    assert ann == one.masked("ANN@example.org").text
    assert ann not in {one.masked("bob@example.org").text, other.masked("ann@example.org").text}
    assert one.masked("to ann@example.org").text == f"to {ann}"


def test_masks_are_alike_and_what_must_differ_does() -> None:
    masking = TextMasking(Privacy(entities={"EMAIL_ADDRESS": "mask"}), KEYS)
    assert masking.masked("a@b.org").text == masking.masked("c@d.org").text == "<EMAIL_ADDRESS>"
    assert masking.masked("a@b.org", distinct=True).text != masking.masked("c@d.org", distinct=True).text


def test_what_is_to_be_dropped_is_no_text_any_more() -> None:
    masking = TextMasking(Privacy(entities={"EMAIL_ADDRESS": "mask", "IP_ADDRESS": "drop"}), KEYS)
    assert masking.masked("a@b.org at 10.0.0.1") == ("", ("EMAIL_ADDRESS", "IP_ADDRESS"), True)
    assert "left out: it held IP_ADDRESS" in masking.line("10.0.0.1 failed")


def test_patterns_of_ones_own_are_masked() -> None:
    masking = TextMasking(Privacy(entities={"STAFF": "mask"}, patterns={"STAFF": r"E-\d{6}"}), KEYS)
    assert masking.masked("by E-123456.").text == "by <STAFF>."


def test_what_presidio_does_not_know_by_its_patterns_is_refused() -> None:
    assert {"EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN", "URL"} < set(entities())
    for name, said in {"EMAIL_ADRESS": "did you mean EMAIL_ADDRESS", "PERSON": "need a language model"}.items():
        with pytest.raises(SpecError, match=said):
            TextMasking(Privacy(entities={name: "mask"}), KEYS)
    with pytest.raises(SpecError, match="which a mask is written as"):
        TextMasking(Privacy(entities={"ANY": "mask"}, patterns={"ANY": "[A-Z]+"}), KEYS)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"entities": {"URL": "hide"}}, "entities.URL"),
        ({"patterns": {"STAFF": "E-("}, "entities": {"STAFF": "mask"}}, "no regular expression"),
        ({"patterns": {"STAFF": "E*"}, "entities": {"STAFF": "mask"}}, "matches an empty text"),
        ({"patterns": {"STAFF": "E-1"}}, "STAFF is not among entities"),
        ({"keep_days": 0}, "keep_days"),
        ({"entity": {}}, "entries are entities, patterns"),
        ([], "valid dictionary"),
    ],
)
def test_settings_that_are_wrong_are_refused_by_name(tree: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Privacy.of(tree, where="serve")


def test_a_recognizer_that_fails_or_takes_too_long_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    from presidio_analyzer.predefined_recognizers import CreditCardRecognizer

    def broken(self: Any, text: str) -> bool:
        raise ValueError("4111111111111111 is odd")

    monkeypatch.setattr(CreditCardRecognizer, "validate_result", broken)
    masking = TextMasking(Privacy(entities={"CREDIT_CARD": "mask"}), KEYS)
    with pytest.raises(MaskingError, match=r"recognizer of CREDIT_CARD failed \(ValueError\)"):
        masking.masked("4111111111111111")
    assert masking.line("4111111111111111").startswith("mapsto: a line of the log was left out")

    monkeypatch.setattr("mapsto.data.privacy.masking._SECONDS", 0.01)
    slow = TextMasking(Privacy(entities={"SLOW": "mask"}, patterns={"SLOW": r"^(x|xx|xxx)+$"}), KEYS)
    with pytest.raises(MaskingError, match=r"recognizer of SLOW failed \(TimeoutError\)"):
        slow.masked("x" * 60 + "y")


def test_without_the_library_masking_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from mapsto.data.privacy import masking as module

    module._recognizers.cache_clear()
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    monkeypatch.delitem(sys.modules, "presidio_analyzer.predefined_recognizers", raising=False)
    with pytest.raises(MissingExtra, match="privacy"):
        TextMasking(Privacy(), KEYS)
    module._recognizers.cache_clear()


def test_a_key_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "privacy.key"
    name = Pseudonyms.of_file(path).of("X", "ann")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Pseudonyms.of_file(path).of("X", "ann") == name
    assert [each.name for each in path.parent.iterdir()] == ["privacy.key"]
    path.write_text("no key")
    with pytest.raises(SpecError, match="holds no key of pseudonyms"):
        Pseudonyms.of_file(path)
