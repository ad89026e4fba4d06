from __future__ import annotations

import sys

import pytest

from pipelines.data.wording import check_languages, damaged, other_language
from pipelines.errors import DataError

GERMAN = "Wo bleibt meine Rückerstattung, ich warte schon seit drei Wochen darauf"


def test_another_language_is_named_and_an_expected_one_is_not():
    assert other_language(GERMAN, ["en"]) == "de"
    assert other_language(GERMAN, ["en", "de"]) is None
    assert other_language("Where is my refund, I have been waiting for it for three weeks", ["en"]) is None


def test_what_is_short_or_says_nothing_is_not_judged():
    assert other_language("Guten Tag, danke", ["en"]) is None
    assert other_language("SKU-12 4711 0815 / 998877 - 12.5 x 30 x 40 :: 77", ["en"]) is None


def test_a_language_that_nobody_can_tell_is_refused():
    check_languages(["en", "de"])
    with pytest.raises(DataError, match=r"names 'english', which cannot be told apart; known are .*'de'.*'en'"):
        check_languages(["en", "english"])


@pytest.mark.parametrize("text", ["it\u00e2\u20ac\u2122s fine", "caf\u00c3\u00a9", "lost \ufffd here"])
def test_damage_is_seen(text):
    assert damaged(text)


@pytest.mark.parametrize("text", ["plain", "café, naïve, £5", "日本語のテキスト", "“quoted” – and … 😀"])
def test_what_is_not_ascii_is_no_damage(text):
    assert not damaged(text)


def test_a_library_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy.badness", None)
    with pytest.raises(DataError, match=r"encoding_damage needs the library ftfy.*promptmint\[checks\]"):
        damaged("café")
