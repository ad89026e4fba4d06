"""Decide who is champion: promote a version that passed, or roll back to an earlier champion; MLflow follows."""

from __future__ import annotations

from typing import Any

from prefect import flow

from pipelines.errors import LedgerConflict, LedgerError, listed
from pipelines.promotion import ledger
from pipelines.store.opening import the_ledger
from tasks.registering import judge_family, project_aliases, promote_version, reconcile_with_ledger, roll_back_version


@flow(name="promote", flow_run_name="{name} v{version}", persist_result=False)
def promote(
    name: str, version: int, who: str, why: str, force: bool = False, expected: int | None = None
) -> dict[str, int | None]:
    """Make a version the champion that serving teams pull.

    Args:
        name: Name of the recipe.
        version: Number of a registered version whose gates passed.
        who: Name of the person who decides.
        why: The reason, kept in the ledger.
        force: Promote although its gates did not pass; the reason is then required.
        expected: Number of the ledger's last entry when you decided. None: its last entry now.
    """
    promote_version(name, version, who, why, force, expected)
    return project_aliases(name)


@flow(name="roll-back", flow_run_name="{name}", persist_result=False)
def roll_back(
    name: str, who: str, why: str, version: int | None = None, expected: int | None = None
) -> dict[str, int | None]:
    """Make an earlier champion champion again.

    Args:
        name: Name of the recipe.
        who: Name of the person who decides.
        why: The reason, kept in the ledger.
        version: Number of an earlier champion. None: the one before this.
        expected: Number of the ledger's last entry when you decided. None: its last entry now.
    """
    roll_back_version(name, version, who, why, expected)
    return project_aliases(name)


@flow(name="promote-family", flow_run_name="{family}", persist_result=False)
def promote_family(family: str, dry_run: bool = False) -> dict[str, Any]:
    """Promote what waits in a family of recipes and is proven, all of them judged together.

    Args:
        family: The name that the recipes give as promotion.family.
        dry_run: Only tell what would be promoted.
    """
    found = judge_family(family)
    for member in found["members"]:
        if member["promoted"] and not dry_run:
            try:
                promote_version(
                    member["name"], member["version"], "promptmint", member["why"], expected=member["sequence"]
                )
            except LedgerConflict as lost:  # another champion than the one it was compared with: a person decides
                member |= {"promoted": False, "why": str(lost)}
            project_aliases(member["name"])
    return {**found, "dry_run": dry_run}


@flow(name="reconcile", persist_result=False)
def reconcile(name: str | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Make MLflow's aliases and tags say what the ledger says.

    Args:
        name: Name of a recipe. None: every recipe in the ledger.
        dry_run: Only tell what differs.
    """
    known = ledger.names(the_ledger())
    if name is not None and name not in known:
        raise LedgerError(f"The ledger knows no recipe {name!r}. It knows {listed(known)}.")
    found = {each: reconcile_with_ledger(each, dry_run) for each in ([name] if name else known)}
    return {
        "dry_run": dry_run,
        "changed": [difference for each in found.values() for difference in each["changed"]],
        "lost": [{"recipe": each, "version": version} for each in found for version in found[each]["lost"]],
    }
