"""The page at / in a real browser: two versions of a prompt answer a text side by side."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from promptmint.serving.app import PAGE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_it_needs_nothing_from_elsewhere_and_builds_no_html_from_answers(shop: Any, run: Any) -> None:
    page = PAGE.read_text()
    assert not re.findall(r"https?://|src=|@import|innerHTML|insertAdjacentHTML|document\.write|eval\(", page)
    with run("tickets") as running:
        answer = running.http.get("/")
    assert answer.headers["content-type"].startswith("text/html") and answer.text == page
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_text_is_answered_side_by_side(shop: Any, run: Any, tmp_path: Path) -> None:
    with run("tickets", "tickets@2") as running:
        first, second = (running.predict(prompt, "my <b>invoice</b>").json() for prompt in ("tickets", "tickets@2"))
        shown = in_browser(f"{running.listening.url}/?text=my%20%3Cb%3Einvoice%3C/b%3E", tmp_path)
    for answer, version in ((first, 1), (second, 2)):
        assert f"version {version}</h2>" in shown
        assert f"<strong>{answer['label']}</strong>" in shown
        assert f"{100 * answer['probability']:.1f} %" in shown
    assert (tmp_path / "page.png").stat().st_size > 10_000


def in_browser(url: str, folder: Path) -> str:
    """The page's elements after its script has run; a picture of it is in `page.png`."""
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
    ]
    options += ["--virtual-time-budget=5000", "--window-size=1000,760"]
    command = [str(CHROMIUM), *options]
    subprocess.run([*command, f"--screenshot={folder / 'page.png'}", url], capture_output=True, timeout=120, check=True)
    done = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
