"""The page at / in a real browser: the champion, another version and the untouched base answer a text side by side."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from promptmint.serving.app import PAGE
from promptmint.serving.served import Row

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, DESK = 360, 1280
OUTSIDE = """[...document.body.querySelectorAll("*")].filter(each => {
  const box = each.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(each => each.outerHTML.slice(0, 120))"""
CARDS = """[...document.querySelectorAll("article")].map(each => [...each.children].map(child => child.innerText))"""

Evaluate = Callable[[str], Any]  # an expression in the page, as JSON
Open = Callable[..., Evaluate]

browser = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]
in_browser = pytest.mark.parametrize("opened", [pytest.param(None, marks=browser)], indirect=True)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """`evaluate = opened(url, width)`: a page in a browser of its own, spoken to by its DevTools protocol."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    profile = tmp_path / "profile"
    process = subprocess.Popen(
        [str(CHROMIUM), *options, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    )
    port = profile / "DevToolsActivePort"
    wait_until(lambda: port.exists() and port.read_text().count("\n"))
    number, path = port.read_text().split("\n")[:2]
    with connect(f"ws://127.0.0.1:{number}{path}", max_size=None, proxy=None) as socket:
        count = itertools.count(1)

        def call(method: str, session: str | None = None, **parameters: Any) -> Any:
            sent = {"id": next(count), "method": method, "params": parameters}
            socket.send(json.dumps(sent | ({"sessionId": session} if session else {})))
            while (answer := json.loads(socket.recv(timeout=60))).get("id") != sent["id"]:
                pass
            assert "error" not in answer, answer
            return answer["result"]

        def opened(url: str, width: int = DESK) -> Evaluate:
            target = call("Target.createTarget", url="about:blank")["targetId"]
            session = call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            call("Emulation.setDeviceMetricsOverride", session, **size)
            call("Page.navigate", session, url=url)

            def evaluate(expression: str) -> Any:
                found = call("Runtime.evaluate", session, expression=f"JSON.stringify({expression})")["result"]
                assert found["type"] == "string", found
                return json.loads(found["value"])

            return evaluate

        yield opened
        call("Browser.close")
    process.wait(timeout=30)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def cards_of(evaluate: Evaluate, count: int) -> list[list[str]]:
    """What so many answers show, waited for."""
    wait_until(lambda: len(evaluate(CARDS)) == count)
    found: list[list[str]] = evaluate(CARDS)
    return found


@pytest.fixture
def replies(shop: Any, mint_on: Any, gpt2_folder: Path) -> None:
    """A prompt with label words on a decoder; its second version is champion."""
    for method in ("p-tuning-v2", "prompt-tuning"):
        shop.register("replies", mint_on(gpt2_folder, method, words=("invoice", "password")))
    shop.promote("replies", 2)


def test_it_needs_nothing_from_elsewhere_and_builds_no_html_from_answers(shop: Any, run: Any) -> None:
    page = PAGE.read_text()
    assert not re.findall(r"https?://|src=|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    with run("tickets") as running:
        answer = running.http.get("/")
    assert answer.headers["content-type"].startswith("text/html") and answer.text == page
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@in_browser
def test_a_text_is_labelled_by_both_versions_and_the_base(shop: Any, run: Any, replies: None, opened: Open) -> None:
    with run("replies") as running:
        evaluate = opened(f"{running.listening.url}/?text=my%20%3Cb%3Einvoice%3C/b%3E")
        cards = cards_of(evaluate, 3)
        asked = [{"prompt": "replies"}, {"prompt": "replies@1"}, {"prompt": "replies", "untouched": True}]
        answers = [running.http.post("/v1/predict", json={**one, "text": "my <b>invoice</b>"}).json() for one in asked]
        assert len({answer["probability"] for answer in answers}) == 3
        names = ("replies@champion, version 2", "replies@1, version 1", "zero-shot")
        for answer, name, (_, who, label, likeliest, *_rest) in zip(answers, names, cards, strict=True):
            assert who.startswith(name) and label == answer["label"]
            assert f"{100 * answer['probability']:.1f} %" in likeliest


@in_browser
def test_a_text_is_written_on_by_all_three(shop: Any, run: Any, replies: None, opened: Open) -> None:
    with run("replies") as running:
        served = running.service.served
        evaluate = opened(f"{running.listening.url}/?text=the%20invoice&write")
        wait_until(lambda: running.metric("requests_total", path="/v1/generate", status="200") == 3)
        wait_until(lambda: not evaluate("document.getElementById('write').disabled"))
        found = evaluate("[...document.querySelectorAll('mark')].map(each => each.textContent)")
        asked = (("replies@champion", False), ("replies@1", False), ("replies@champion", True))
        rows = [Row(reference, "the invoice", untouched) for reference, untouched in asked]
        assert found == ["".join(served.generate(row, 64)[1]) for row in rows] and len(set(found)) == 3


@in_browser
def test_it_says_where_the_base_has_no_answer_and_fits_a_phone(shop: Any, run: Any, opened: Open) -> None:
    shop.promote("tickets", 3)
    with run("tickets") as running:
        for width in (PHONE, DESK):
            evaluate = opened(f"{running.listening.url}/?text=my%20invoice", width)
            champion, other, base = cards_of(evaluate, 3)
            assert "version 3" in champion[1] and "version 2" in other[1]
            assert base[0] == "The untouched base" and "It has no answer here" in base[2] and len(base) == 3
            assert evaluate("document.documentElement.scrollWidth") <= width and evaluate(OUTSIDE) == []


@in_browser
def test_a_prompt_of_pairs_asks_for_a_second_text(
    shop: Any, run: Any, mint_on: Any, bert_folder: Path, opened: Open
) -> None:
    shop.promote("answered", shop.register("answered", mint_on(bert_folder, template="{text}{sep}{pair}")))
    with run("answered", "tickets") as running:
        evaluate = opened(f"{running.listening.url}/?text=my%20login&pair=my%20card")
        cards = cards_of(evaluate, 2)
        pair = {"prompt": "answered", "text": "my login", "pair": "my card"}
        assert cards[0][2] == running.http.post("/v1/predict", json=pair).json()["label"]
        assert not evaluate("document.getElementById('pair').hidden")
