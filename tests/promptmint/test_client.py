"""References to prompts."""

from __future__ import annotations

import pytest

from mlflow_config import registry
from pipelines.errors import RegistryError
from promptmint.client import resolved


@pytest.mark.parametrize("reference", [
    "", "tickets", "tickets@", "@1", "tickets@latest", "tickets@0", "tickets@01", "tickets@-1", "tickets@1.0",
    "Tickets@1", "-tickets@1", "a/b@1", "../b@1", "tickets@1\n", "tickets @1", "tickets@champion@1", "b'@1",
])  # fmt: skip
def test_what_is_no_reference_is_refused(reference: str) -> None:
    with pytest.raises(RegistryError, match="is no reference to a prompt: write NAME@champion"):
        resolved(reference)


def test_a_number_is_taken_as_it_is() -> None:
    assert resolved("ticket-routing@12") == ("ticket-routing", 12)


def test_an_alias_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry, "resolve", lambda name, alias: {("a", "champion"): 3, ("a", "challenger"): 5}[name, alias]
    )
    assert resolved("a@champion") == ("a", 3)
    assert resolved("a@challenger") == ("a", 5)
