"""Versions that a client has served beside the champion, and the untouched base asked in its place."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.inference.base import load_base
from promptmint import client
from promptmint.serving.access import Access

TEXT = "my password is wrong"


def put(running: Any, name: str, version: int, **more: Any) -> Any:
    return running.http.put(f"/v1/prompts/{name}/versions/{version}", **more)


def served(running: Any) -> list[str]:
    return [each["prompt"] for each in running.http.get("/v1/prompts").json()["prompts"]]


def test_a_version_is_served_on_demand_and_answers_as_its_own(shop: Any, run: Any) -> None:
    (wanted,) = client.load("tickets@2").predict([TEXT])
    with run("tickets") as running:
        versions = running.http.get("/v1/prompts/tickets/versions").json()["versions"]
        assert [(each["version"], each["served"]) for each in versions] == [(3, False), (2, False), (1, False)]
        assert versions[1]["prompt_digest"] == shop.minted["tickets"][1].digest
        assert running.predict("tickets@2", TEXT).status_code == 404, "nobody has asked for it to be served"
        described = put(running, "tickets", 2)
        assert described.status_code == 200 and described.json()["version"] == 2
        answer = running.predict("tickets@2", TEXT).json()
        assert answer["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
        assert put(running, "tickets", 2).json()["since"] == described.json()["since"], "it was there"
        assert running.http.get("/v1/prompts/tickets/versions").json()["versions"][1]["served"]


def test_beyond_the_bound_the_one_asked_for_the_longest_ago_leaves(shop: Any, run: Any) -> None:
    with run("tickets", "tickets@3", on_demand=1) as running:
        assert put(running, "tickets", 1).status_code == put(running, "tickets", 3).status_code == 200
        assert served(running) == ["tickets@1", "tickets@3", "tickets@champion"]
        assert put(running, "tickets", 2).status_code == 200
        assert served(running) == ["tickets@2", "tickets@3", "tickets@champion"]
        assert running.metric("served_version", prompt="tickets@1") is None
        answers = running.http.post("/v1/batch", json={"rows": [{"prompt": "tickets", "text": TEXT}] * 2})
        assert answers.status_code == 200, "the champion is version 1 too, and stays"
    with run("tickets", on_demand=0) as running:
        refused = put(running, "tickets", 2)
        assert refused.status_code == 409 and "--on-demand" in refused.json()["detail"]


def test_what_cannot_be_served_is_refused_and_says_why(shop: Any, run: Any, mint_on: Any, gpt2_folder: Path) -> None:
    elsewhere = shop.register("tickets", mint_on(gpt2_folder))
    with run("tickets") as running:
        assert put(running, "tickets", 99).status_code == 404
        assert put(running, "letters", 1).status_code == 404, "nothing of that name is served"
        assert put(running, "tickets", 0).status_code == put(running, "Tickets", 1).status_code == 422
        other = put(running, "tickets", elsewhere)
        assert other.status_code == 409 and "another base" in other.json()["detail"]
        assert str(shop.home) not in other.text, "where things lie is for the logs"
        shutil.rmtree(shop.home / "cache")
        (shop.home / "store").rename(shop.home / "away")
        away = put(running, "tickets", 2)
        assert away.status_code == 503 and int(away.headers["retry-after"]) > 0
        assert served(running) == ["tickets@champion"]
        assert running.predict("tickets", TEXT).status_code == 200


def test_tokens_open_the_versions_of_their_prompts(shop: Any, run: Any) -> None:
    one = {"name": "desk", "sha256": hashlib.sha256(b"t1").hexdigest(), "prompts": ["tickets"]}
    with run("tickets", "letters", access=Access.model_validate({"clients": [one]})) as running:
        token = {"Authorization": "Bearer t1"}
        assert put(running, "tickets", 2).status_code == 401
        assert put(running, "tickets", 2, headers=token).status_code == 200
        for name in ("letters", "unknown"):
            assert put(running, name, 1, headers=token).status_code == 403
            assert running.http.get(f"/v1/prompts/{name}/versions", headers=token).status_code == 403


def test_the_untouched_base_answers_zero_shot_in_the_same_batch(
    shop: Any, run: Any, mint_on: Any, gpt2_folder: Path
) -> None:
    minted = mint_on(gpt2_folder, words=("invoice", "password"), template="{text} . it is")
    shop.promote("replies", shop.register("replies", minted))
    base = load_base(gpt2_folder)
    with run("replies") as running:
        tokenizer = running.service.served._engine.tokenizer
        words = [tokenizer(f" {word}")["input_ids"] for word in ("invoice", "password")]
        assert all(len(word) == 1 for word in words)
        ids = tokenizer(f"{TEXT} . it is", return_tensors="pt")["input_ids"]
        said = base.lm_head(base.backbone(ids).last_hidden_state[0, -1])
        wanted = said[[word[0] for word in words]].softmax(0).tolist()
        rows = [{"prompt": "replies", "text": TEXT, "untouched": untouched} for untouched in (False, True)]
        with_prompt, without = running.http.post("/v1/batch", json={"rows": rows}).json()["answers"]
        assert list(without["probabilities"].values()) == pytest.approx(wanted, abs=1e-5)
        assert with_prompt["probability"] != without["probability"]
        assert (with_prompt["untouched"], without["untouched"]) == (False, True)
        assert running.metric("rows_total", prompt="replies@champion", version="untouched") == 1


def test_where_a_linear_head_was_trained_the_untouched_base_has_no_answer(shop: Any, run: Any) -> None:
    with run("tickets") as running:
        refused = running.http.post("/v1/predict", json={"prompt": "tickets", "text": TEXT, "untouched": True})
        assert refused.status_code == 422 and "untouched base has no label" in refused.json()["detail"]
        (described,) = running.http.get("/v1/prompts").json()["prompts"]
        assert described["untouched"] is False and described["pair"] is False


def test_prompts_beyond_their_memory_are_read_again(shop: Any, run: Any) -> None:
    wanted = {name: client.load(f"{name}@1").predict([TEXT])[0].probabilities for name in ("tickets", "letters")}
    with run("tickets", "letters", prompt_bytes=1) as running:
        assert all(not prompt.tensors for prompt in running.service.served._engine.prompts().values())
        for name in ("tickets", "letters", "tickets"):
            assert running.predict(name, TEXT).json()["probabilities"] == pytest.approx(wanted[name], abs=1e-5)
