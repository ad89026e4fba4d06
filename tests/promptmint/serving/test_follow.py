"""Promotions are followed; what cannot be had or does not hold is not served, and the last known good is."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_config import registry
from pipelines.errors import ArtifactError, PromptmintError, RegistryError, TransientError
from pipelines.settings import store_uri
from promptmint import client
from promptmint.serving.service import Options, open_service

TEXT = "my password is wrong"


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Cuts the line to the registry, or mends it."""
    resolve, tags = registry.resolve, registry.version_tags

    def cut(broken: bool) -> None:
        def unreachable(*_: Any) -> Any:
            raise TransientError("MLflow cannot be reached.")

        monkeypatch.setattr(registry, "resolve", unreachable if broken else resolve)
        monkeypatch.setattr(registry, "version_tags", unreachable if broken else tags)

    return cut


def version(running: Any, prompt: str = "tickets") -> int:
    answer = running.predict(prompt, TEXT)
    assert answer.status_code == 200, answer.text
    found: int = answer.json()["version"]
    return found


def stale(running: Any) -> list[str]:
    ready = running.http.get("/ready")
    assert ready.status_code == 200
    found: list[str] = ready.json()["stale"]
    return found


def test_a_promotion_and_a_rollback_are_followed(shop: Any, run: Any, told: Any) -> None:
    with run("tickets", "tickets@2", "letters") as running:
        for champion in (2, 1, 3, 1):
            shop.promote("tickets", champion)
            running.service.follower.look()
            assert version(running) == champion
        assert version(running, "tickets@2") == 2 and version(running, "letters") == 1
        assert running.metric("swaps_total", prompt="tickets@champion") == 4
        assert running.metric("served_version", prompt="tickets@champion") == 1
        engine = running.service.served._engine
        assert set(engine.prompts()) == {"tickets@1", "tickets@2", "letters@1"}, "what nobody stands for is let go"
    swaps = [(line["before"], line["version"]) for line in told() if line["event"] == "serving" and line["before"]]
    assert swaps == [(1, 2), (2, 1), (1, 3), (3, 1)]


def test_it_looks_by_itself(shop: Any, run: Any) -> None:
    with run("tickets", every_s=0.05) as running:
        shop.promote("tickets", 2)
        deadline = time.monotonic() + 20
        while version(running) != 2:
            assert time.monotonic() < deadline


def test_a_registry_that_is_down_is_said_and_survived(shop: Any, run: Any, told: Any, cut: Any) -> None:
    with run("tickets", "letters") as running:
        cut(True)
        for _ in range(3):
            running.service.follower.look()
        assert version(running) == 1
        assert stale(running) == ["letters@champion", "tickets@champion"]
        (letters, tickets) = running.http.get("/v1/prompts").json()["prompts"]
        assert letters["stale"] == tickets["stale"] == "TransientError: MLflow cannot be reached."
        assert running.metric("stale", prompt="tickets@champion") == 1
        assert [line["prompt"] for line in told() if line["event"] == "stale"] == [
            "tickets@champion",
            "letters@champion",
        ]
        cut(False)
        running.service.follower.look()
        assert stale(running) == [] and running.metric("stale", prompt="tickets@champion") == 0
        shop.promote("tickets", 2)
        running.service.follower.look()
        assert version(running) == 2


def test_a_store_that_is_gone_is_survived(shop: Any, run: Any) -> None:
    with run("tickets") as running:
        store = Path(store_uri().removeprefix("file://"))
        shop.promote("tickets", 2)
        store.rename(store.with_name("elsewhere"))
        running.service.follower.look()
        assert version(running) == 1 and stale(running) == ["tickets@champion"]
        store.with_name("elsewhere").rename(store)
        running.service.follower.look()
        assert version(running) == 2 and stale(running) == []


def test_a_champion_of_another_base_is_not_let_in(shop: Any, run: Any, mint_on: Any, gpt2_folder: Path) -> None:
    foreign = shop.register("tickets", mint_on(gpt2_folder))
    with run("tickets") as running:
        shop.promote("tickets", foreign)
        running.service.follower.look()
        assert version(running) == 1 and stale(running) == ["tickets@champion"]
        (listed,) = running.http.get("/v1/prompts").json()["prompts"]
        assert listed["stale"].startswith("BaseModelError: This prompt was minted on another base")
    with pytest.raises(PromptmintError, match="One server holds one base, and these are of several"):
        open_service(["tickets@1", f"tickets@{foreign}"], Options())


@pytest.fixture
def unproven(shop: Any, tmp_path: Path) -> int:
    """The number of a version whose proof fails."""
    from safetensors.torch import load_file, save_file

    minted = shop.minted["tickets"][1]
    spoilt = shutil.copytree(minted.folder, tmp_path / "spoilt")
    logits = load_file(spoilt / "proof.safetensors")["logits"]
    save_file({"logits": logits + 1}, spoilt / "proof.safetensors")
    number: int = shop.register("tickets", type(minted)(spoilt, minted.digest, minted.base_folder, None))
    return number


def test_a_champion_whose_proof_fails_is_not_let_in(shop: Any, run: Any, told: Any, cut: Any, unproven: int) -> None:
    number = unproven
    with run("tickets") as running:
        shop.promote("tickets", number)
        running.service.follower.look()
        assert version(running) == 1
        (listed,) = running.http.get("/v1/prompts").json()["prompts"]
        assert listed["stale"].startswith("ArtifactError: The proof failed")
        running.service.follower.look()
        cut(True)
        running.service.follower.look()
        told_of = [line["why"].partition(":")[0] for line in told() if line["event"] == "stale"]
        assert told_of == ["ArtifactError", "TransientError"], "each kind once"
        cut(False)
        shop.promote("tickets", 3)
        running.service.follower.look()
        assert version(running) == 3 and stale(running) == []
    with pytest.raises(ArtifactError):
        open_service([f"tickets@{number}"], Options())


def test_a_refused_champion_is_not_fetched_and_proven_again(
    shop: Any, run: Any, unproven: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    fetch = client.fetched
    monkeypatch.setattr(client, "fetched", lambda named: fetched.append(named.version) or fetch(named))
    with run("tickets") as running:
        fetched.clear()
        for champion, wanted in (
            (unproven, [unproven]),
            (1, [unproven]),
            (unproven, [unproven]),
            (2, [unproven, 2]),
            (unproven, [unproven, 2, unproven]),
        ):
            shop.promote("tickets", champion)
            for _ in range(3):
                running.service.follower.look()
            assert fetched == wanted, "once, until the registry names another"
            assert stale(running) == (["tickets@champion"] if champion == unproven else [])
        assert version(running) == 2


def test_a_server_starts_from_its_cache_and_says_so(shop: Any, run: Any, told: Any, cut: Any) -> None:
    with run("tickets"):
        pass
    cut(True)
    shutil.rmtree(store_uri().removeprefix("file://"))
    with run("tickets") as running:
        assert version(running) == 1 and stale(running) == ["tickets@champion"]
        assert [line["level"] for line in told() if line["event"] == "serving"] == ["info", "warning"]
        cut(False)
        running.service.follower.look()
        assert stale(running) == []
    cut(True)
    with pytest.raises(TransientError):
        open_service(["letters"], Options())


def test_what_does_not_exist_is_not_served(shop: Any) -> None:
    for reference in ("nothing", "tickets@challenger", "tickets@9"):
        with pytest.raises(RegistryError):
            open_service(["tickets", reference], Options())


# Shadows.


def test_a_challenger_rides_along_and_is_compared(shop: Any, run: Any, told: Any) -> None:
    texts = [f"my {noun} again" for noun in ("password", "invoice", "refund", "login", "charge", "profile")]
    champion, challenger = (client.load(f"tickets@{number}").predict(texts) for number in (1, 2))
    agreeing = sum(a.label == b.label for a, b in zip(champion, challenger, strict=True))
    with run("tickets", shadow=True) as running:
        assert version(running) == 1 and not [line for line in told() if line["event"] == "shadow"]
        shop.promote("tickets", 1, challenger=2)
        running.service.follower.look()
        rows = [{"prompt": "tickets", "text": text} for text in texts]
        answers = running.http.post("/v1/batch", json={"rows": rows}).json()["answers"]
        assert [each["label"] for each in answers] == [each.label for each in champion]
        assert {each["version"] for each in answers} == {1}
        (line,) = [line for line in told() if line["event"] == "shadow"]
        assert (line["champion"], line["challenger"], line["rows"], line["agreed"]) == (1, 2, 6, agreeing)
        counted = [running.metric("shadow_rows_total", prompt="tickets", agreed=agreed) for agreed in ("true", "false")]
        assert sum(count or 0 for count in counted) == 6 and (counted[0] or 0) == agreeing
        shop.promote("tickets", 2)  # and the challenger is one no longer
        running.service.follower.look()
        assert version(running) == 2
        assert len([line for line in told() if line["event"] == "shadow"]) == 1
        assert set(running.service.served._engine.prompts()) == {"tickets@2"}


def test_a_challenger_that_fails_costs_nobody_an_answer(
    shop: Any, run: Any, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.promote("tickets", 1, challenger=2)
    with run("tickets", shadow=True) as running:
        engine = running.service.served._engine
        predict = engine.predict

        def failing(rows: Any) -> Any:
            if any(name == "tickets@2" for name, _ in rows):
                raise ArtifactError("changed on the disk")
            return predict(rows)

        monkeypatch.setattr(engine, "predict", failing)
        assert version(running) == 1
        assert [line["riders"] for line in told() if line["event"] == "shadow failed"] == [["tickets@2"]]
