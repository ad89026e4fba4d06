"""What a deployment's run does before any training: refuse what is forged, end at once where nothing has changed."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.retrain import retrain
from pipelines.errors import RecipeError


@pytest.mark.parametrize("forged", ["", "../outside", "recipes/known.toml", "/etc/passwd"])
def test_a_recipe_that_is_not_known_is_refused(workshop: Any, prefect_server: None, forged: str) -> None:
    workshop.recipe("known")
    with pytest.raises(RecipeError, match=r"no recipe named .*Known names: 'known'"):
        retrain(forged)


def test_equal_inputs_end_as_unchanged_with_the_earlier_runs_link(workshop: Any, client: SyncPrefectClient) -> None:
    earlier = "0190c3f2-0000-7000-8000-000000000001"
    record = workshop.finish("known", flow_run=earlier)

    assert retrain("known") == {**record, "unchanged": True}

    runs = client.request("POST", "/flow_runs/filter", json={"sort": "START_TIME_DESC", "limit": 1}).json()
    assert (runs[0]["name"], runs[0]["state_name"]) == ("known: unchanged", "Completed")
    found = client.request("POST", "/artifacts/latest/filter", json={}).json()
    artifacts = {artifact["key"]: artifact for artifact in found}
    assert f"/runs/flow-run/{earlier}" in artifacts["known-earlier-run"]["data"]
    assert "Nothing has changed since an earlier run" in artifacts["known-report"]["data"]
