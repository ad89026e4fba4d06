"""A small shop: four tiny prompts in a real store and a real registry, and servers that answer for them on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

NAMES = {"tickets": ("p-tuning-v2", "prompt-tuning", "prefix-tuning"), "letters": ("residual",)}  # a method per version


@dataclass(frozen=True)
class Shop:
    """A home with store and registry, and what lies in them: `minted[name][version - 1]`."""

    home: Path
    minted: dict[str, list[Any]]

    def promote(self, name: str, champion: int | None, challenger: int | None = None) -> None:
        """Make the registry's aliases say so."""
        from mlflow_config import registry

        registry.project(name, champion, challenger)

    def register(self, name: str, minted: Any) -> int:
        """The version under which one more prompt is registered."""
        from mlflow_config import names
        from mlflow_config.tracking import connected
        from pipelines.store.opening import the_store
        from pipelines.store.trees import save_tree

        save_tree(the_store(), minted.base_folder)
        tags = {names.TAG_ARTIFACT: save_tree(the_store(), minted.folder), names.TAG_PROMPT: minted.digest}
        with connected() as client:
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            return int(client.create_model_version(name, source=str(minted.folder), tags=tags).version)


@pytest.fixture(scope="session")
def stocked(mint_on: Callable[..., Any], bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The shop from which each test gets a copy: making MLflow's database takes seconds."""
    minted = {name: [mint_on(bert_folder, method) for method in methods] for name, methods in NAMES.items()}
    shop = Shop(tmp_path_factory.mktemp("shop"), minted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTMINT_HOME", str(shop.home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # which MLflow itself sets once it was told
        for name, versions in minted.items():
            for each in versions:
                shop.register(name, each)
            shop.promote(name, 1)
    return shop


@pytest.fixture
def shop(stocked: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop of the test's own; the first version of each prompt is champion."""
    home = shutil.copytree(stocked.home, tmp_path / "home")
    monkeypatch.setenv("PROMPTMINT_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Shop(home, stocked.minted)


@dataclass(frozen=True)
class Running:
    """A server that listens, and a client of it."""

    listening: Any
    http: httpx.Client

    @property
    def service(self) -> Any:
        return self.listening.service

    def predict(self, prompt: str, text: str, **more: Any) -> httpx.Response:
        return self.http.post("/v1/predict", json={"prompt": prompt, "text": text}, **more)

    def metric(self, name: str, **labels: str) -> float | None:
        value: float | None = self.service.metrics.registry.get_sample_value(f"promptmint_{name}", labels)
        return value


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """`with run("tickets", every_s=0.05) as running`: a real server in this process, ended with the block."""
    from promptmint.serving.server import bound, listen
    from promptmint.serving.service import Options, open_service

    @contextmanager
    def run(*references: str, access: Any = None, **options: Any) -> Iterator[Running]:
        service = open_service(references, Options(**{"every_s": 60.0, **options}), access)
        with bound("127.0.0.1", 0) as listener:
            listening = listen(service, listener)
            try:
                with httpx.Client(base_url=listening.url, timeout=30) as http:
                    yield Running(listening, http)
            finally:
                if listening.thread.is_alive():
                    listening.drain(5)

    yield run


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """What a server has written into its logs so far."""
    from promptmint.serving.logs import Lines

    caplog.set_level("INFO", logger="promptmint.serving")
    return lambda: [json.loads(Lines().format(record)) for record in caplog.records if hasattr(record, "told")]
