"""The OpenAPI description is true: schemathesis asks what it allows and what it forbids, and finds nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptmint.serving.access import Access

# What schemathesis thinks up names no prompt that is served; half of its valid names are changed into one that is.
HOOKS = """
import re
import schemathesis

@schemathesis.hook
def map_body(context, body):
    rows = body.get("rows", [body]) if isinstance(body, dict) else []
    for row in rows if isinstance(rows, list) else []:
        name = row.get("prompt") if isinstance(row, dict) else None
        if isinstance(name, str) and re.fullmatch("[a-z0-9][a-z0-9-]*(@champion)?", name) and len(name) % 2:
            row["prompt"] = name = "tickets"
        if isinstance(name, str) and name.partition("@")[0] == "tickets":
            if isinstance(row.get("pair"), str) and 0 < len(row["pair"]) <= 20_000:
                del row["pair"]  # how many texts a prompt takes is not in the schema: GET /v1/prompts says so
    return body
"""


@pytest.fixture
def decoder(shop: Any, mint_on: Any, gpt2_folder: Path) -> None:
    """Makes the champion of 'tickets' a prompt on a decoder, which writes too, and answers untouched."""
    shop.promote("tickets", shop.register("tickets", mint_on(gpt2_folder, words=("invoice", "password"))))


def test_every_path_is_described_with_examples(shop: Any, run: Any, decoder: None) -> None:
    with run("tickets") as running:
        described = running.http.get("/openapi.json").json()
    schemas = described["components"]["schemas"]
    assert set(described["paths"]) == {
        "/v1/predict", "/v1/batch", "/v1/generate", "/v1/prompts", "/health", "/ready", "/metrics",
        "/v1/prompts/{name}/versions", "/v1/prompts/{name}/versions/{version}",
    }  # fmt: skip
    assert all(
        schemas[name]["examples"] for name in ("Question", "Questions", "Reply", "Replies", "Problem", "Versions")
    )
    for path in ("/v1/predict", "/v1/batch", "/v1/generate"):
        assert {"400", "401", "403", "404", "413", "422", "429", "503"} < set(
            described["paths"][path]["post"]["responses"]
        )


@pytest.mark.slow
@pytest.mark.parametrize("with_tokens", [False, pytest.param(True, marks=pytest.mark.long)])
def test_schemathesis_finds_nothing(shop: Any, run: Any, decoder: None, tmp_path: Path, with_tokens: bool) -> None:
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", "--max-examples", "60", "--seed", "1"]
    command += ["--workers", "1", "--no-color"]
    (tmp_path / "hooks.py").write_text(HOOKS)
    settings = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    digest = hashlib.sha256(b"secret").hexdigest()
    access = Access.model_validate({"clients": [{"name": "all", "sha256": digest, "prompts": ["*"]}]})
    command += ["--header", "Authorization: Bearer secret"] if with_tokens else []
    with run("tickets", access=access if with_tokens else None) as running:
        done = subprocess.run(
            [*command, f"{running.listening.url}/openapi.json"], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, **settings}, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:]
        assert running.metric("requests_total", path="/v1/predict", status="200") > 10
        assert running.metric("requests_total", path="/v1/predict", status="500") is None
