"""A real server on loopback: what it answers, what it refuses and how, and what it writes down of it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from promptmint import client
from promptmint.serving.access import Access
from promptmint.serving.limits import BODY_BYTES, DISCARDED_BYTES, REQUEST_ROWS, STREAMS, TEXT_CHARS

TEXTS = ("my password is wrong", "please help me with my invoice today", "my refund again")


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Answers.


def test_an_answer_is_the_prompts_own_and_names_it(shop: Any, run: Any) -> None:
    wanted = client.load("tickets@champion").predict(TEXTS)
    with run("tickets") as running:
        for text, answer in zip(TEXTS, wanted, strict=True):
            given = running.predict("tickets", text)
            assert given.status_code == 200, given.text
            found = given.json()
            assert (found["prompt"], found["version"]) == ("tickets@champion", 1)
            assert found["prompt_digest"] == shop.minted["tickets"][0].digest
            assert found["label"] == answer.label
            assert found["probabilities"] == pytest.approx(answer.probabilities, abs=1e-5)


def test_a_batch_mixes_prompts_and_versions(shop: Any, run: Any) -> None:
    prompts = ("tickets", "letters@1", "tickets@2")
    wanted = {prompt: client.load(prompt.replace("tickets", "tickets@1", prompt == "tickets")) for prompt in prompts}
    rows = [{"prompt": prompt, "text": text} for text in TEXTS for prompt in prompts]
    with run(*prompts) as running:
        answers = running.http.post("/v1/batch", json={"rows": rows}).json()["answers"]
        assert len(answers) == len(rows)
        for row, answer in zip(rows, answers, strict=True):
            expected = wanted[row["prompt"]].predict([row["text"]])[0]
            assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
            assert answer["prompt_digest"] == wanted[row["prompt"]].prompt.digest
        listed = running.http.get("/v1/prompts").json()["prompts"]
    assert [each["prompt"] for each in listed] == ["letters@1", "tickets@2", "tickets@champion"]
    assert all(each["stale"] is None and each["proven_within"] < 1e-3 for each in listed)


def test_requests_under_load_share_batches(shop: Any, run: Any) -> None:
    with run("tickets", "letters") as running, ThreadPoolExecutor(16) as pool:
        asked = [("tickets", "letters")[number % 2] for number in range(64)]
        answers = list(pool.map(lambda prompt: running.predict(prompt, TEXTS[0]), asked))
        assert all(answer.status_code == 200 for answer in answers)
        assert [answer.json()["prompt"] for answer in answers] == [f"{prompt}@champion" for prompt in asked]
        assert running.metric("batch_rows_count") < 64
        assert running.metric("rows_total", prompt="tickets@champion", version="1") == 32
        assert running.metric("requests_total", path="/v1/predict", status="200") == 64


# Refusals.

GOOD = {"prompt": "tickets", "text": "my invoice"}
BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 422),
    "null": (b"null", 422),
    "not UTF-8": (b'{"prompt": "tickets", "text": "\xff\xfe"}', 400),
    "not JSON": (b"{", 422),
    "a list": (b"[]", 422),
    "deeper than any parser goes": (b"[" * 100_000, 400),
    "a number too long": (b"9" * 10_000, 400),
    "half of a surrogate": (b'{"prompt": "tickets", "text": "\\ud800"}', 422),
    "no text": (b'{"prompt": "tickets"}', 422),
    "text of null": (b'{"prompt": "tickets", "text": null}', 422),
    "empty text": (b'{"prompt": "tickets", "text": ""}', 422),
    "a key too many": (json.dumps({**GOOD, "temperature": 1}).encode(), 422),
    "long text": (json.dumps({**GOOD, "text": "x" * (TEXT_CHARS + 1)}).encode(), 422),
    "no name": (json.dumps({**GOOD, "prompt": "../tickets"}).encode(), 422),
    "unknown prompt": (json.dumps({**GOOD, "prompt": "ticket"}).encode(), 404),
    "unknown version": (json.dumps({**GOOD, "prompt": "tickets@2"}).encode(), 404),
    "too many bytes": (b" " * (BODY_BYTES + 1), 413),
    "far too many bytes": (b" " * (DISCARDED_BYTES // 2), 413),
}


def test_bad_input_is_refused_in_a_sentence_that_does_not_repeat_it(shop: Any, run: Any) -> None:
    headers = {"Content-Type": "application/json"}
    with run("tickets") as running:
        for what, (body, status) in BAD_BODIES.items():
            answer = running.http.post("/v1/predict", content=body, headers=headers)
            assert answer.status_code == status, (what, answer.text)
            assert list(answer.json()) == ["detail"] and len(answer.json()["detail"]) > 10, what
            assert len(answer.text) < 1000, what
        streamed = running.http.post("/v1/predict", content=(b" " * 65536 for _ in range(40)), headers=headers)
        assert streamed.status_code == 413, "although it did not say how long it would be"
        many = {"rows": [GOOD] * (REQUEST_ROWS + 1)}
        assert running.http.post("/v1/batch", json=many).status_code == 422
        assert running.http.post("/v1/batch", json={"rows": []}).status_code == 422
        assert running.http.post("/v1/predict", content=json.dumps(GOOD), headers={}).status_code == 422, "a web form"
        refused = {path: running.http.get(path) for path in ("/v1/predict", "/v2", "/v1/generate")}
        assert [each.status_code for each in refused.values()] == [405, 404, 404]
        assert "takes POST" in refused["/v1/predict"].json()["detail"]
        assert "/openapi.json" in refused["/v2"].json()["detail"]
        assert "an encoder" in refused["/v1/generate"].json()["detail"]
        for body in (b"", b"null", json.dumps(GOOD)):  # the last as a web form, as curl sends it by default
            untyped = running.http.post("/v1/predict", content=body)
            assert untyped.status_code == 422 and "Content-Type: application/json" in untyped.json()["detail"]
        assert running.predict("tickets", "x" * TEXT_CHARS).status_code == 200
        assert running.predict("tickets", "\0").status_code == 200


def test_one_unknown_prompt_refuses_the_whole_batch(shop: Any, run: Any) -> None:
    with run("tickets") as running:
        answer = running.http.post("/v1/batch", json={"rows": [GOOD, {**GOOD, "prompt": "letters"}]})
        assert answer.status_code == 404


def test_a_full_queue_is_429_with_a_time_to_come_back(shop: Any, run: Any) -> None:
    with run("tickets", waiting_rows=64) as running, ThreadPoolExecutor(8) as pool:
        with running.service.served._between_batches:  # the engine is busy for as long as this test likes
            first = pool.submit(running.predict, "tickets", TEXTS[0])
            wait_for(lambda: running.service.in_flight == 1 and running.service.batcher.waiting == 0)
            rows = {"rows": [GOOD] * 32}
            waiting = [pool.submit(running.http.post, "/v1/batch", json=rows) for _ in range(2)]
            wait_for(lambda: running.service.batcher.waiting == 64)
            refused = running.predict("tickets", TEXTS[0])
            assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
            assert running.http.get("/health").status_code == 200
            assert "promptmint_waiting_rows 64.0" in running.http.get("/metrics").text
        assert first.result().status_code == 200
        assert [len(each.result().json()["answers"]) for each in waiting] == [32, 32]


def test_tokens_open_what_they_are_for(shop: Any, run: Any) -> None:
    def digest(token: str) -> str:
        return hashlib.sha256(token.encode()).hexdigest()

    clients = [{"name": "desk", "sha256": digest("t1"), "prompts": ["tickets"]},
               {"name": "all", "sha256": digest("t2"), "prompts": ["*"]}]  # fmt: skip
    with run("tickets", "letters", access=Access.model_validate({"clients": clients})) as running:
        desk, everybody = ({"Authorization": f"Bearer {token}"} for token in ("t1", "t2"))
        for headers in ({}, {"Authorization": "Bearer t3"}, {"Authorization": "Basic t1"}):
            for path in ("/v1/prompts", "/metrics", "/nowhere"):
                refused = running.http.get(path, headers=headers)
                assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
            assert running.http.post("/v1/predict", content=b"{", headers=headers).status_code == 401
        for path in ("/", "/health", "/ready", "/openapi.json"):
            assert running.http.get(path).status_code == 200
        assert running.predict("tickets", TEXTS[0], headers=desk).status_code == 200
        assert running.predict("letters", TEXTS[0], headers=desk).status_code == 403
        assert running.predict("unknown", TEXTS[0], headers=desk).status_code == 403, "what is there is not told"
        assert running.predict("unknown", TEXTS[0], headers=everybody).status_code == 404
        listed = [running.http.get("/v1/prompts", headers=each).json()["prompts"] for each in (desk, everybody)]
        assert [[each["prompt"] for each in seen] for seen in listed] == [
            ["tickets@champion"],
            ["letters@champion", "tickets@champion"],
        ]


# Writing.


def events(text: str) -> list[dict[str, str]]:
    """The fields of every server-sent event."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block) for block in blocks]


def test_a_decoder_writes_on_in_pieces_and_says_who_did(shop: Any, run: Any, mint_on: Any, gpt2_folder: Path) -> None:
    shop.register("replies", mint_on(gpt2_folder))
    shop.promote("replies", 1)
    body = {"prompt": "replies", "text": "the invoice is", "max_new_tokens": 12}
    with run("replies") as running:
        engine = running.service.served._engine
        wanted = list(engine.generate("replies@1", "the invoice is", 12))
        with running.http.stream("POST", "/v1/generate", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            *pieces, end = events(answer.read().decode())
        assert [json.loads(piece["data"])["text"] for piece in pieces] == wanted and wanted
        assert end["event"] == "end" and json.loads(end["data"])["version"] == 1
        wait_for(lambda: running.service.streams == 0)
        running.service.streams = STREAMS
        assert running.http.post("/v1/generate", json=body).status_code == 429
        assert running.http.post("/v1/generate", json={**body, "prompt": "nothing"}).status_code == 404
        assert running.http.post("/v1/generate", json={**body, "max_new_tokens": 0}).status_code == 422


def test_a_prompt_that_was_tuned_to_write_has_texts_and_no_labels(
    shop: Any, run: Any, mint_on: Any, t5_folder: Path
) -> None:
    shop.register("replies", mint_on(t5_folder, max_new_tokens=6))
    shop.promote("replies", 1)
    body = {"prompt": "replies", "text": "the invoice is"}
    with run("replies") as running:
        (told,) = running.http.get("/v1/prompts").json()["prompts"]
        assert told["writes"] and told["labels"] == []
        refused = running.http.post("/v1/predict", json=body)
        assert refused.status_code == 422 and "POST it to /v1/generate" in refused.json()["detail"]
        engine, said = running.service.served._engine, {}
        for untouched in (False, True):
            *pieces, _ = events(running.http.post("/v1/generate", json={**body, "untouched": untouched}).text)
            said[untouched] = "".join(json.loads(piece["data"])["text"] for piece in pieces)
        assert said[False] == "".join(engine.generate("replies@1", body["text"])) != said[True]


def test_an_encoder_does_not_write(shop: Any, run: Any) -> None:
    with run("tickets") as running:
        answer = running.http.post("/v1/generate", json=GOOD)
        assert answer.status_code == 404


# Logs.


def test_a_request_leaves_a_line_without_its_text(shop: Any, run: Any, told: Any) -> None:
    with run("tickets") as running:
        answer = running.predict("tickets", "my secret password")
        running.predict("nothing", "my secret password")
        running.http.post("/v1/predict", content=b'{"text": "my secret password"}')
    lines = [line for line in told() if line["event"] == "request"]
    assert [line["status"] for line in lines] == [200, 404, 422]
    first = lines[0]
    assert first["id"] == answer.headers["x-request-id"] and first["ms"] > 0
    assert first["prompts"] == {"tickets@champion": 1} and first["versions"] == {"tickets@champion": 1}
    assert "secret" not in json.dumps(told())


def test_texts_are_logged_where_the_operator_asks_for_it(shop: Any, run: Any, told: Any) -> None:
    with run("tickets", log_texts=True) as running:
        running.predict("tickets", "my secret password")
    assert [line["texts"] for line in told() if line["event"] == "request"] == [["my secret password"]]


def test_a_failure_is_500_and_its_traceback_in_the_logs(
    shop: Any, run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with run("tickets") as running:
        with monkeypatch.context() as patch:
            patch.setattr(running.service.served, "_predict", lambda *rows: 1 / 0)
            answer = running.predict("tickets", TEXTS[0])
        assert answer.status_code == 500 and answer.json() == {"detail": "The server failed at this; its logs say how."}
        wait_for(lambda: "ZeroDivisionError" in caplog.text)  # written after the answer
        assert running.predict("tickets", TEXTS[0]).status_code == 200
        wait_for(lambda: running.service.in_flight == 0)


# Leaving.


def test_draining_answers_what_was_accepted_and_refuses_what_is_new(shop: Any, run: Any) -> None:
    with run("tickets") as running, ThreadPoolExecutor(4) as pool:
        with running.service.served._between_batches:
            accepted = [pool.submit(running.predict, "tickets", text) for text in TEXTS]
            wait_for(lambda: running.service.in_flight == 3)
            leaving = threading.Thread(target=running.listening.drain, args=(30,))
            leaving.start()
            wait_for(lambda: running.service.draining)
            refused = running.predict("tickets", TEXTS[0])
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert running.http.get("/ready").status_code == 503
            assert running.http.get("/ready").json()["status"] == "draining"
            assert running.http.get("/health").status_code == 200
        assert [each.result().status_code for each in accepted] == [200, 200, 200]
        leaving.join(10)
        assert not leaving.is_alive()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.listening.url}/health")


def test_it_does_not_wait_for_ever(shop: Any, run: Any, told: Any) -> None:
    with run("tickets") as running, ThreadPoolExecutor(1) as pool:
        with running.service.served._between_batches:
            pool.submit(running.predict, "tickets", TEXTS[0])
            wait_for(lambda: running.service.in_flight == 1)
            leaving = threading.Thread(target=running.listening.drain, args=(0.2,))
            leaving.start()
            wait_for(lambda: any(line["event"] == "leaving early" for line in told()))
            assert running.service.in_flight == 1
        leaving.join(10)
        assert not leaving.is_alive()
