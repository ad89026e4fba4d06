"""The pages in a real browser: as wide as a phone nothing sticks out, and nothing is asked of any server."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.bases.pin import PinnedBase
from pipelines.evaluation.pages.drift import load_words
from pipelines.evaluation.pages.evidence import gather
from pipelines.evaluation.pages.fleet import Line, fleet_page
from pipelines.evaluation.pages.run import run_page
from pipelines.store.local import LocalStore

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

# A page that shows others in frames and writes down how each of them lies there.
MEASURE = """<!doctype html><body><script>
const frames = %s, found = {};
let waiting = frames.length;
for (const [name, file, width] of frames) {
  const frame = document.createElement("iframe");
  frame.style = `width:${width}px;height:800px;border:0`;
  frame.onload = () => {
    const inner = frame.contentDocument, root = inner.documentElement;
    const outside = [...inner.body.querySelectorAll("*")].filter(each => {
      const box = each.getBoundingClientRect();
      return box.width > 0 && (box.right > root.clientWidth + 0.5 || box.left < -0.5);
    });
    found[name] = {
      inner: root.clientWidth, scroll: root.scrollWidth, text: inner.body.innerText.length,
      outside: outside.map(each => each.outerHTML.slice(0, 120)),
      small: [...inner.querySelectorAll("svg text")].filter(each => each.getBoundingClientRect().height < 10).length,
      asked: frame.contentWindow.performance.getEntriesByType("resource").map(each => each.name),
    };
    if (--waiting === 0) {
      const told = document.createElement("pre");
      told.id = "found";
      told.textContent = JSON.stringify(found);
      document.body.append(told);
    }
  };
  frame.src = file;
  document.body.append(frame);
}
</script></body>"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what it was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def measured(folder: Path, frames: list[tuple[str, str, int]]) -> tuple[dict[str, Any], set[str]]:
    """How Chromium lays out files of a folder, `{name: measures}`, and every path that it asked for."""
    (folder / "measure.html").write_text(MEASURE % json.dumps(frames))
    asked: list[str] = []
    handler = type("Handler", (Quiet,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=20000",
            "--dump-dom", f"http://127.0.0.1:{server.server_port}/measure.html",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        server.shutdown()
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(found[1])), {path for path in asked if path != "/favicon.ico"}


@pytest.fixture
def pages(store: LocalStore, record: dict[str, Any], drifted: dict[str, Any], tmp_path: Path) -> Path:
    """A folder with a run's page, a run's page of many labels with long names, and a fleet's page."""
    folder = tmp_path / "pages"
    folder.mkdir()
    base = PinnedBase("stranger/" + "tiny-bert" * 8, "c" * 64, {"config.json": "0" * 64}, "file://base", 9, {})
    (folder / "run.html").write_text(run_page(drifted, gather(store, drifted), base, load_words(store, drifted)))
    long = {"labels": [f"a_very_long_label_without_any_space_{number}" for number in range(12)]}
    (folder / "long.html").write_text(
        run_page({**record, **long, "recipe": "long-" * 12, "data": {}}, gather(store, record | long))
    )
    standings = [
        Line(f"{'recipe-' * 8}{number}", 12, 0.9, "2026-10-01T00:00:00+00:00", 13, 5, "inconclusive", "why " * 99,
                 "2026-11-20T00:00:00+00:00")
        for number in range(200)
    ]  # fmt: skip
    from datetime import UTC, datetime

    (folder / "fleet.html").write_text(fleet_page(standings, datetime(2026, 11, 21, tzinfo=UTC)))
    return folder


def test_nothing_sticks_out_and_nothing_is_asked_for(pages: Path) -> None:
    names, widths = ("run", "long", "fleet"), (360, 768, 1280)
    frames = [(f"{name} at {width}", f"{name}.html", width) for name in names for width in widths]
    found, asked = measured(pages, frames)
    assert found.keys() == {name for name, _, _ in frames}
    for name, page in found.items():
        assert page["text"] > 500, name
        assert page["scroll"] <= page["inner"], (name, page["outside"])
        assert page["outside"] == [] and page["small"] == 0, name
        assert page["asked"] == [], name
    assert asked == {"/measure.html", "/run.html", "/long.html", "/fleet.html"}


def test_the_measure_itself_sees_what_sticks_out_and_what_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text('<body><p style="width:400px">wide</p><img src="/picture.png"></body>')
    found, asked = measured(tmp_path, [("bad", "bad.html", 360)])
    assert found["bad"]["scroll"] > 360 and found["bad"]["outside"]
    assert "/picture.png" in asked and found["bad"]["asked"]
