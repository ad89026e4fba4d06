"""A prompt of pairs over HTTP: both texts, or a refusal that says which is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipelines.errors import DataError
from promptmint import client
from promptmint.cli import app

PAIRS = (("my password", "please help me"), ("refund my invoice today", "my login"))


@pytest.fixture
def answered(shop: Any, mint_on: Any, bert_folder: Path) -> None:
    """A prompt of pairs beside 'tickets'."""
    shop.promote("answered", shop.register("answered", mint_on(bert_folder, template="{text}{sep}{pair}")))


def test_pairs_are_answered_singly_and_in_batches_with_single_texts(shop: Any, run: Any, answered: None) -> None:
    wanted = client.load("answered@champion").predict(*map(list, zip(*PAIRS, strict=True)))
    rows = [{"prompt": "answered", "text": text, "pair": pair} for text, pair in PAIRS]
    with run("answered", "tickets") as running:
        mixed = running.http.post("/v1/batch", json={"rows": [*rows, {"prompt": "tickets", "text": "my login"}]})
        single = [running.http.post("/v1/predict", json=row).json() for row in rows]
        listed = {each["prompt"]: each["pair"] for each in running.http.get("/v1/prompts").json()["prompts"]}
    for found in (single, mixed.json()["answers"][:2]):
        for answer, expected in zip(found, wanted, strict=True):
            assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert listed == {"answered@champion": True, "tickets@champion": False}


def test_a_second_text_too_few_or_too_many_is_refused(shop: Any, run: Any, answered: None) -> None:
    good = {"prompt": "answered", "text": "my secret", "pair": "my card"}
    with run("answered", "tickets") as running:
        missing = running.http.post("/v1/predict", json={"prompt": "answered", "text": "my secret"})
        extra = running.http.post("/v1/batch", json={"rows": [good, {**good, "prompt": "tickets"}]})
        empty = running.http.post("/v1/predict", json={**good, "pair": ""})
        assert missing.status_code == extra.status_code == empty.status_code == 422
        assert missing.json()["detail"] == ("answered@champion answers pairs of texts: send the second one as 'pair'.")
        assert extra.json()["detail"] == "rows.1: tickets@champion answers single texts: leave 'pair' out."
        assert "secret" not in missing.text + extra.text + empty.text


def test_a_champion_that_takes_another_number_of_texts_refuses_what_waited_for_the_old_one(
    shop: Any, run: Any, answered: None, mint_on: Any, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run("answered", "tickets") as running:
        standings = running.service.served.standings
        with monkeypatch.context() as patch:  # as it was when the question was let in
            patch.setattr(
                running.service.served, "standings", lambda: {"answered@champion": standings()["tickets@champion"]}
            )
            late = running.predict("answered", "my secret")
        assert late.status_code == 422 and "GET /v1/prompts says how" in late.json()["detail"]
        assert "secret" not in late.text


def test_the_command_line_reads_pairs_with_a_tab_between_them(shop: Any, answered: None) -> None:
    wanted = client.load("answered@champion").predict(*map(list, zip(*PAIRS, strict=True)))
    command, lines = ["predict", "answered@champion", "-", "--json"], "\n".join("\t".join(pair) for pair in PAIRS)
    done = CliRunner().invoke(app, command, input=lines)
    found = json.loads(done.stdout.splitlines()[-1])["answers"]
    assert [(each["text"], each["pair"]) for each in found] == list(PAIRS)
    assert [each["label"] for each in found] == [answer.label for answer in wanted]
    named = [*command[:2], *(text for text, _ in PAIRS), *(part for _, pair in PAIRS for part in ("--pair", pair))]
    assert json.loads(CliRunner().invoke(app, [*named, "--json"]).stdout.splitlines()[-1])["answers"] == found
    refused = CliRunner().invoke(app, command, input="my password")
    assert isinstance(refused.exception, DataError) and "Line 1 is 'my password', with 0 tabs" in str(refused.exception)
