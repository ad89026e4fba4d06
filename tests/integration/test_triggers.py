"""Retraining nobody watches, on real servers: data arrive, a run follows, a champion stands; servers and runs die."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.promotion import ledger
from pipelines.store.opening import the_ledger
from promptmint import servers

RUN_S = 600  # what a tiny run may take on a very busy machine
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def served(place: Any, workshop: Any) -> dict[str, Any]:
    """The servers of a place whose deployments know the workshop's recipes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTMINT_RECIPES", str(workshop.folder / "recipes"))
        patch.setenv("PROMPTMINT_COMPUTE", str(workshop.folder / "compute.toml"))
        found = servers.up(place.home, place.prefect_port, place.mlflow_port)
    schedule = place.deployments()["watch"]
    place.post(f"/deployments/{schedule['id']}", {"paused": True}, method="PATCH")  # the test says when to look
    return found


def versions() -> list[tuple[str, int]]:
    """What the ledger says, in its order."""
    return [(entry.action, entry.version) for entry in ledger.read(the_ledger(), "orchard")]


def alias(place: Any) -> str:
    path = "/api/2.0/mlflow/registered-models/alias?name=orchard&alias=champion"
    return str(json.loads(place.get(path, place.mlflow_port))["model_version"]["version"])


def arrived(payload: dict[str, str], snapshot: str) -> dict[str, Any]:
    """An event as anybody can send it."""
    return {
        "id": str(uuid.uuid4()),
        "event": "promptmint.data.arrived",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": "promptmint.recipe.orchard", "promptmint.snapshot": snapshot},
        "payload": payload,
    }


def seconds_from_event_to_run(place: Any, run: str) -> float:
    """From the moment an event occurred to the start of its run, both as the server wrote them down."""
    body = {"filter": {"event": {"name": ["promptmint.data.arrived"]}}}
    (event,) = place.post("/events/filter", body)["events"]
    times = [datetime.fromisoformat(at) for at in (event["occurred"], place.look(run)["start_time"])]
    return (times[1] - times[0]).total_seconds()


def idle() -> bool:
    """Whether the machine has little else to do: only then is a promise in seconds held to the clock."""
    return bool(psutil.cpu_percent(interval=1) < 50)


def trainings(place: Any) -> dict[str, int]:
    """How many trainings of each method the store remembers."""
    memos = (place.home / "store" / "memo" / "train").glob("*.json")
    return dict(Counter(json.loads(path.read_text())["inputs"]["kind"] for path in memos))


@contextmanager
def chromium() -> Iterator[Any]:
    """A page of a browser without a window; patient, because the machine may be busy."""
    api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or pytest.skip("Chromium is not installed")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = opened.new_page()
        page.set_default_timeout(120_000)
        yield page
        opened.close()


class TestTriggers:
    """One story, told in order."""

    def test_a_file_dropped_becomes_a_champion(
        self, place: Any, workshop: Any, served: Any, until: Callable[..., Any], figure: Callable[[str], None]
    ) -> None:
        workshop.deliver("monday.csv", 400, seed=1)
        alone = idle()
        look = place.run("watch", recipes=["orchard"], settle_s=1)
        until(lambda: place.ended(look), RUN_S)
        assert place.look(look)["state_name"] == "Completed"
        (run,) = until(lambda: place.flow_runs("retrain-on-new-data"), 30)
        assert run["parameters"] == {"recipe": "orchard"}
        until(lambda: place.ended(run["id"]), RUN_S)
        assert place.look(run["id"])["state_name"] == "Completed"
        waited = seconds_from_event_to_run(place, run["id"])
        kind = "left alone" if alone else "that has other work"
        figure(f"from an event to its run: {waited:.1f} s on a machine {kind} (10 are promised on one left alone)")
        assert waited < (10 if alone else 60)
        assert versions() == [("registered", 1), ("promoted", 1)]
        assert alias(place) == "1"

    def test_many_events_of_one_snapshot_make_one_training(
        self, place: Any, workshop: Any, served: Any, until: Callable[..., Any], figure: Callable[[str], None]
    ) -> None:
        workshop.deliver("tuesday.csv", 400, seed=2)
        before = len(place.flow_runs("retrain-on-new-data"))
        events = [arrived({"recipe": "orchard"}, snapshot="again") for _ in range(500)]
        for start in range(0, 500, 25):
            place.post("/events", events[start : start + 25])
        by_hand = [place.run("retrain", recipe="orchard") for _ in range(2)]
        until(lambda: len(place.flow_runs("retrain-on-new-data")) > before, RUN_S)
        until(lambda: all(place.ended(run) for run in by_hand), RUN_S)
        runs = place.flow_runs("retrain-on-new-data")[before:]
        until(lambda: all(place.ended(run["id"]) for run in runs), RUN_S)
        names = sorted(place.look(run)["name"] for run in [*by_hand, *(each["id"] for each in runs)])
        assert names == ["orchard: passed", *["orchard: unchanged"] * (len(names) - 1)]
        assert len(runs) < 10  # one a minute: a slow server takes its time over 500 events
        assert trainings(place) == {"prompt": 2, "lora": 2}  # one of them was Monday's
        figure(f"500 events and 2 clicks: {len(names)} runs, of which 1 trained")
        assert versions()[2:] == [("registered", 2), ("promoted", 2)]
        (link,) = place.post("/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["orchard-earlier-run"]}}})
        assert "/runs/flow-run/" in link["data"]

    @pytest.mark.parametrize("payload", [{"recipe": "../recipes/orchard.toml"}, {}], ids=["forged", "missing"])
    def test_a_forged_event_fails_and_says_why(
        self, place: Any, served: Any, until: Callable[..., Any], payload: dict[str, str]
    ) -> None:
        known = {run["id"] for run in place.flow_runs("retrain-on-new-data")}
        place.post("/events", [arrived(payload, snapshot=str(len(payload)))])
        new = until(lambda: {run["id"] for run in place.flow_runs("retrain-on-new-data")} - known, 60)
        (run,) = new
        until(lambda: place.ended(run), RUN_S)
        state = place.look(run)["state"]
        assert state["name"] == "Failed" and "There is no recipe named" in state["message"]

    def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(
        self, place: Any, workshop: Any, served: dict[str, Any], until: Callable[..., Any]
    ) -> None:
        workshop.deliver("wednesday.csv", 400, seed=3)
        run = place.run("retrain", recipe="orchard")
        until(lambda: self.training(place), RUN_S)
        os.kill(served["prefect"]["pid"], signal.SIGKILL)
        time.sleep(3)
        again = servers.up(place.home, place.prefect_port, place.mlflow_port)
        assert [again[name]["already_running"] for name in ("prefect", "worker")] == [False, True]
        until(lambda: place.ended(run), RUN_S)
        assert place.look(run)["state_name"] == "Completed"
        assert versions()[4:] == [("registered", 3), ("promoted", 3)]
        assert alias(place) == "3"

    def test_the_next_in_line_goes_on_when_a_run_is_killed(
        self, place: Any, workshop: Any, served: Any, until: Callable[..., Any]
    ) -> None:
        workshop.deliver("thursday.csv", 400, seed=4)
        first = place.run("retrain", recipe="orchard")
        worker = until(lambda: self.training(place), RUN_S)
        second = place.run("retrain-scheduled", recipe="orchard")
        until(lambda: place.look(second)["state_name"] == "Running", RUN_S)
        self.flow_process(worker).kill()
        until(lambda: place.look(first)["state_name"] == "Crashed", 60)
        until(lambda: place.ended(second), RUN_S)
        assert place.look(second)["state_name"] == "Completed"
        assert versions()[6:] == [("registered", 4), ("promoted", 4)]

    @pytest.mark.browser
    def test_a_person_clicks_run_and_fills_in_a_form_that_explains_itself(
        self, place: Any, served: Any, until: Callable[..., Any], tmp_path: Path
    ) -> None:
        deployments = place.deployments()
        known = {run["id"] for run in place.flow_runs("retrain")}
        with chromium() as page:
            for name in ("promote", "watch", "retrain"):
                page.goto(f"http://127.0.0.1:{place.prefect_port}/deployments/deployment/{deployments[name]['id']}")
                page.get_by_role("button", name="Run", exact=True).click()
                page.get_by_text("Custom run").click()
                for parameter, about in deployments[name]["parameter_openapi_schema"]["properties"].items():
                    page.get_by_text(re.compile(rf"^{parameter}( \(Optional\))?$")).first.wait_for()
                    page.get_by_text(re.split(r"[`\n]", about["description"])[0].strip()).first.wait_for()
                page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            recipe = page.locator("textarea").first
            recipe.fill("orchard")
            recipe.blur()  # the form takes in what was typed
            with page.expect_response("**/create_flow_run"):
                page.get_by_role("button", name="Submit").click()
            (run,) = until(lambda: {run["id"] for run in place.flow_runs("retrain")} - known, 60)
        assert place.look(run)["parameters"]["recipe"] == "orchard"
        until(lambda: place.ended(run), RUN_S)
        assert place.look(run)["name"] == "orchard: unchanged"

    def test_a_run_that_takes_too_long_is_ended_with_its_workers(
        self, place: Any, workshop: Any, served: Any, until: Callable[..., Any]
    ) -> None:
        workshop.deliver("friday.csv", 400, seed=5)
        hasty = workshop.folder / "hasty.toml"
        hasty.write_text((workshop.folder / "compute.toml").read_text() + "run_timeout_s = 3\n")
        run = place.run("retrain", recipe="orchard", compute=str(hasty))
        until(lambda: place.ended(run), RUN_S)
        state = place.look(run)["state"]
        assert state["name"] == "Failed" and "longer than run_timeout_s = 3" in state["message"]
        assert self.training(place) is None
        assert len(versions()) == 8

    def training(self, place: Any) -> psutil.Process | None:
        """A process that trains in this place."""
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("PROMPTMINT_HOME") == str(place.home)
                if ours and "pipelines.training.worker" in process.cmdline():
                    return process
            except psutil.Error:
                continue
        return None

    def flow_process(self, worker: psutil.Process) -> psutil.Process:
        """The process of the flow run that a training belongs to."""
        return next(each for each in worker.parents() if any("prefect" in word for word in each.cmdline()[:4]))
