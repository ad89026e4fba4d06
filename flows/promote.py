"""Decide who is champion: promote a version that passed, or roll back to an earlier champion."""

from __future__ import annotations

from prefect import flow

from tasks.registering import project_aliases, promote_version, roll_back_version


@flow(name="promote", flow_run_name="{name} v{version}", persist_result=False)
def promote(name: str, version: int, who: str, why: str, force: bool = False) -> dict[str, int | None]:
    """Make a version the champion that serving teams pull.

    Args:
        name: Name of the recipe.
        version: Number of a registered version whose gates passed.
        who: Name of the person who decides.
        why: The reason, kept in the ledger.
        force: Promote although its gates did not pass; the reason is then required.
    """
    promote_version(name, version, who, why, force)
    return project_aliases(name)


@flow(name="roll-back", flow_run_name="{name}", persist_result=False)
def roll_back(name: str, who: str, why: str, version: int | None = None) -> dict[str, int | None]:
    """Make an earlier champion champion again.

    Args:
        name: Name of the recipe.
        who: Name of the person who decides.
        why: The reason, kept in the ledger.
        version: Number of an earlier champion. None: the one before this.
    """
    roll_back_version(name, version, who, why)
    return project_aliases(name)
