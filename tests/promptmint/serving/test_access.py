"""Tokens: who may ask what, and where a server without them may listen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import PromptmintError
from promptmint.serving.access import Access, check_address, read_access


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


ACCESS = Access.model_validate({
    "clients": [
        {"name": "desk", "sha256": digest("desk's secret"), "prompts": ["tickets"]},
        {"name": "all", "sha256": digest("master"), "prompts": ["*"]},
    ]
})  # fmt: skip


@pytest.mark.parametrize(("header", "name"), [
    ("Bearer desk's secret", "desk"), ("bearer master", "all"), ("Bearer  master ", "all"),
    ("Bearer Master", None), ("Basic master", None), ("master", None), ("Bearer", None), ("", None),
    ("Bearer " + digest("master"), None), ("Bearer mästër\u20ac", None),
])  # fmt: skip
def test_a_token_is_somebodys_or_nobodys(header: str, name: str | None) -> None:
    client = ACCESS.client(header)
    assert (client.name if client else None) == name


def test_a_client_may_ask_what_it_is_listed_for() -> None:
    desk, everybody = ACCESS.clients
    assert desk.may_ask("tickets") and not desk.may_ask("letters") and not desk.may_ask("*")
    assert everybody.may_ask("letters")


@pytest.mark.parametrize("wrong", [
    "", "[]", "{}", '{"clients": []}', {"clients": [{"name": "a", "sha256": "secret", "prompts": []}]},
    {"clients": [{"name": "a", "token": "secret", "prompts": []}]},
])  # fmt: skip
def test_a_file_that_is_no_list_of_clients_is_refused(wrong: Any, tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text(wrong if isinstance(wrong, str) else json.dumps(wrong))
    with pytest.raises(PromptmintError, match=r"PROMPTMINT_TOKENS is '.*tokens.json', which cannot be read"):
        read_access(tmp_path / "tokens.json")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptmintError, match="No such file"):
        read_access(tmp_path / "tokens.json")


def test_without_tokens_nobody_else_is_listened_to() -> None:
    for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost"):
        check_address(host, None)
    for host in ("0.0.0.0", "::", "10.0.0.7", "example.org", ""):
        with pytest.raises(PromptmintError, match=r"Without tokens a server listens on 127\.0\.0\.1 only"):
            check_address(host, None)
        check_address(host, ACCESS)
