"""Pages written where a person asked for them: of one run, and of all recipes."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.bases.pin import PinnedBase, base_record
from pipelines.errors import LedgerError, NotInStore, RegistryError, listed
from pipelines.promotion import ledger
from pipelines.runs import finished, names, recorded
from pipelines.store.local import replacing
from pipelines.store.opening import the_ledger, the_store
from pipelines.store.store import Store

REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)(@(?P<version>champion|challenger|[1-9][0-9]*))?")


def write_run(reference: str, to: Path, texts: bool = True) -> dict[str, Any]:
    """`{html, bytes, recipe, run_key, verdict}` of the page now at `to`.

    Args:
        reference: NAME, the last run of a recipe; or the run that made NAME@VERSION, NAME@champion, NAME@challenger.
        to: the file to write; what was there is replaced.
        texts: whether the worst errors come with what was written in them, and drift with the words that changed.

    Raises:
        RegistryError: not a reference, or nobody is champion or challenger.
        LedgerError: no such version.
        NotInStore: there is no such run.
    """
    from pipelines.evaluation.pages.drift import load_words
    from pipelines.evaluation.pages.evidence import gather
    from pipelines.evaluation.pages.run import run_page

    store = the_store()
    record = _record(store, reference)
    changed = load_words(store, record) if texts else None
    page = run_page(record, gather(store, record, texts), _base(store, record), changed)
    told = {key: record[key] for key in ("recipe", "run_key", "verdict")}
    return {**_written(page, to), **told}


def write_fleet(to: Path) -> dict[str, Any]:
    """`{html, bytes, recipes}` of the page of all recipes, now at `to`."""
    from pipelines.evaluation.pages.fleet import fleet_page, survey

    lines = survey(the_store(), the_ledger())
    return {**_written(fleet_page(lines, datetime.now(UTC)), to), "recipes": len(lines)}


def _record(store: Store, reference: str) -> dict[str, Any]:
    """The record of the run that a reference stands for."""
    found = REFERENCE.fullmatch(reference)
    if found is None:
        raise RegistryError(
            f"{reference!r} stands for no run: write NAME, NAME@VERSION, NAME@champion or NAME@challenger."
        )
    name, version = found["name"], found["version"]
    if version is None:
        if records := recorded(store, name):
            return records[-1]
        raise NotInStore(f"There is no run of {name!r} in {store.uri}. There are runs of {listed(names(store))}.")
    key = _run_key(name, version)
    if record := finished(store, name, key):
        return record
    raise NotInStore(f"The run {key!r} of {reference!r} is no longer in {store.uri}. Run the recipe again.")


def _run_key(name: str, version: str) -> str:
    """The key of the run that made a version, from the ledger."""
    entries = ledger.read(the_ledger(), name)
    state = ledger.state(entries)
    number = (
        int(version) if version.isdigit() else {"champion": state.champion, "challenger": state.challenger}[version]
    )
    if number is None:
        raise RegistryError(f"{name!r} has no {version}. `promptmint status {name}` shows its versions.")
    found = next((entry.run_key for entry in entries if entry.version == number), None)
    if found is None:
        versions = listed(entry.version for entry in entries if entry.action == "registered")
        raise LedgerError(f"There is no version {number!r} of {name!r}; there are {versions}.")
    return found


def _base(store: Store, record: dict[str, Any]) -> PinnedBase | None:
    try:
        return base_record(store, record["base_digest"])
    except NotInStore:
        return None


def _written(page: str, to: Path) -> dict[str, Any]:
    data = page.encode()
    with replacing(to) as file:
        file.write(data)
    return {"html": str(to), "bytes": len(data)}
