"""The ledger: the only mutable fact of promptmint, which version of a prompt is champion.

    ledger/NAME/00000001.json   {"sequence": 1, "action": "registered", "version": 1, ...}
    ledger/NAME/00000002.json   {"sequence": 2, "action": "promoted", "version": 1, "previous_digest": "...", ...}

Entries are only ever added, each by an exclusive create of the next number: of many writers one wins, and the others
learn who did. An entry carries the digest of the one before it, so that a changed or lost entry is noticed; the newest
one has no successor yet to vouch for it. Everything else (champion, challenger, MLflow's aliases) is folded from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.digests import canonical_json, digest_json, short
from pipelines.errors import AlreadyInStore, LedgerConflict, LedgerError, NotInStore, listed
from pipelines.store.store import Store, by_name

LEDGERS = "ledger/"
ATTEMPTS = 1000  # of an append that others keep overtaking; each attempt lost is an entry somebody else has won

Action = Literal["registered", "promoted", "rolled-back"]


class Entry(BaseModel):
    """One line of the ledger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sequence: int = Field(ge=1)
    name: str
    action: Action
    version: int
    prompt_digest: str
    verdict: Literal["passed", "inconclusive", "refused"]
    run_key: str
    who: str
    why: str
    at: str  # ISO 8601, UTC
    previous_digest: str | None  # of the entry before; None for the first

    @property
    def digest(self) -> str:
        """The SHA-256 of this entry's canonical JSON."""
        return digest_json(self.model_dump(mode="json"))


@dataclass(frozen=True)
class State:
    """Who reigns, who waits, and what the ledger has seen."""

    champion: int | None  # the version promoted or rolled back to last
    challenger: int | None  # the newest passed version registered after the champion, if it never reigned
    previous: int | None  # the version a plain roll back returns to
    history: tuple[int, ...]  # every reign, oldest first
    sequence: int  # of the last entry; 0 where there is none


def entry_key(name: str, sequence: int) -> str:
    """Where an entry lies in the store."""
    return f"{LEDGERS}{name}/{sequence:08d}.json"


def names(store: Store) -> list[str]:
    """Every name that something was registered under, sorted."""
    return list(by_name(store, LEDGERS))


def read(store: Store, name: str, keys: Sequence[str] | None = None) -> list[Entry]:
    """Every entry about `name`, oldest first, the chain checked; empty where nothing was ever registered.

    `keys` are those under the name, where a listing of all ledgers has told them; else they are listed.

    Raises:
        LedgerError: an entry is missing, unreadable, or not the one that its successor was written after.
    """
    # An entry is created after its predecessor, so all up to the last one listed exist, even if a listing made while
    # others were writing left some out.
    entries: list[Entry] = []
    for sequence in range(1, _last_sequence(store, name, keys) + 1):
        entry = _read_entry(store, name, sequence)
        previous = entries[-1].digest if entries else None
        if entry.previous_digest != previous:
            raise LedgerError(
                f"The ledger of {name!r} was changed: entry {sequence} follows digest {entry.previous_digest!r}, but "
                f"what lies before it has {previous!r}. Restore ledger/{name} from a backup."
            )
        entries.append(entry)
    return entries


def state(entries: Sequence[Entry]) -> State:
    """What the entries add up to."""
    reigns: list[int] = []  # the throne as a stack: rolling back pops down to a version, so that twice goes back twice
    history: list[int] = []
    for entry in entries:
        if entry.action == "registered":
            continue
        history.append(entry.version)
        below = reigns[:-1]
        if entry.action == "rolled-back" and entry.version in below:
            reigns = reigns[: len(below) - below[::-1].index(entry.version)]
        else:
            reigns.append(entry.version)
    champion = reigns[-1] if reigns else None
    registered = [entry for entry in entries if entry.action == "registered"]
    crowned = next((entry.sequence for entry in registered if entry.version == champion), 0)
    waiting = [
        e.version for e in registered if e.sequence > crowned and e.verdict == "passed" and e.version not in history
    ]
    return State(
        champion=champion,
        challenger=waiting[-1] if waiting else None,
        previous=reigns[-2] if len(reigns) > 1 else None,
        history=tuple(history),
        sequence=len(entries),
    )


def append(
    store: Store, name: str, after: Sequence[Entry], draft: Mapping[str, object], now: datetime | None = None
) -> Entry:
    """The entry of `draft`, now written behind `after`, all that its writer knew of; one of many writers gets there.

    Raises:
        LedgerConflict: somebody else wrote behind `after` first; the message says who and what.
        LedgerError: `draft` is no entry.
    """
    sequence = len(after) + 1
    at = (now or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")
    place = {"sequence": sequence, "name": name, "at": at, "previous_digest": after[-1].digest if after else None}
    try:
        entry = Entry.model_validate({**draft, **place})
    except ValidationError as error:
        raise LedgerError(f"Not an entry for the ledger of {name!r}: {error}") from None
    try:
        store.create(entry_key(name, sequence), canonical_json(entry.model_dump(mode="json")))
    except AlreadyInStore:
        raise LedgerConflict(_lost_to(_read_entry(store, name, sequence))) from None
    return entry


def register(
    store: Store,
    name: str,
    version: int,
    *,
    prompt_digest: str,
    verdict: str,
    run_key: str,
    who: str,
    why: str,
    now: datetime | None = None,
) -> Entry:
    """The entry that says this version exists: written once, however often it is asked for or whoever else writes.

    Raises:
        LedgerError: the version is registered with another prompt or verdict, or the ledger is damaged.
    """
    draft = {"version": version, "prompt_digest": prompt_digest, "verdict": verdict, "run_key": run_key}
    for _ in range(ATTEMPTS):
        entries = read(store, name)
        if known := _registration(entries, version):
            if (known.prompt_digest, known.verdict) != (prompt_digest, verdict):
                raise LedgerError(
                    f"Version {version!r} of {name!r} is registered as prompt {short(known.prompt_digest)} "
                    f"({known.verdict}), not {short(prompt_digest)} ({verdict}). A new prompt needs a new version."
                )
            return known
        # Registrations commute with everything: whoever was first, this one queues behind. A store that repeated a
        # create after losing its answer was overtaken by itself, and finds its entry when it looks again.
        with suppress(LedgerConflict):
            return append(store, name, entries, draft | {"action": "registered", "who": who, "why": why}, now)
    raise LedgerConflict(f"Others wrote the ledger of {name!r} {ATTEMPTS} times in the meantime. Try again.")


def promote(
    store: Store,
    name: str,
    version: int,
    *,
    who: str,
    why: str,
    expected: int | None = None,
    force: bool = False,
    now: datetime | None = None,
) -> Entry:
    """The entry that made `version` champion; the existing one where it reigns already.

    Args:
        expected: the `State.sequence` this was decided on; a promotion or roll back after it is a conflict, a mere
            registration is not. None: decided on what the ledger says now.
        force: promote a version whose verdict is not 'passed'; needs a `why`.

    Raises:
        LedgerConflict: somebody else changed the champion since; the message says who.
        LedgerError: the version is not registered, or did not pass and is not forced.
    """
    entries = read(store, name)
    registration = _registration(entries, version)
    if registration is None:
        raise LedgerError(f"There is no version {version!r} of {name!r} to promote. Registered: {_versions(entries)}.")
    if registration.verdict != "passed" and not (force and why.strip()):
        raise LedgerError(
            f"Version {version!r} of {name!r} is {registration.verdict!r}, and only 'passed' is promoted. To promote "
            "it all the same, force it (--force) and say why."
        )
    return _crown(store, name, entries, "promoted", registration, who, why, expected, now)


def roll_back(
    store: Store,
    name: str,
    to_version: int | None = None,
    *,
    who: str,
    why: str,
    expected: int | None = None,
    now: datetime | None = None,
) -> Entry:
    """The entry that made an earlier champion champion again: the one before this, or `to_version`.

    Raises:
        LedgerConflict: somebody else changed the champion since `expected` (None: since now); the message says who.
        LedgerError: there is no earlier champion, or `to_version` never was one; the message says which were.
    """
    entries = read(store, name)
    current = state(entries)
    target = current.previous if to_version is None else to_version
    registration = _registration(entries, target) if target in current.history else None
    if registration is None:
        earlier = listed(set(current.history) - {current.champion})
        wish = "an earlier champion" if to_version is None else f"version {to_version!r}, which never was champion"
        raise LedgerError(
            f"Cannot roll {name!r} back to {wish}. Champion now: {current.champion!r}; possible: {earlier}. "
            "Name one of these (--to); a version that never was champion is promoted."
        )
    return _crown(store, name, entries, "rolled-back", registration, who, why, expected, now)


def _crown(
    store: Store,
    name: str,
    entries: list[Entry],
    action: Action,
    registration: Entry,
    who: str,
    why: str,
    expected: int | None,
    now: datetime | None,
) -> Entry:
    """The entry that makes a version champion, unless somebody else has changed the champion since `expected`."""
    seen = len(entries) if expected is None else expected
    if not 0 <= seen <= len(entries):
        raise LedgerError(
            f"The ledger of {name!r} ends at entry {len(entries)}; it has no entry {seen!r} to decide on."
        )
    draft = registration.model_dump(include={"version", "prompt_digest", "verdict", "run_key"})
    for _ in range(ATTEMPTS):
        decisions = [entry for entry in entries if entry.action != "registered"]
        if decisions and decisions[-1].version == registration.version:
            return decisions[-1]
        if decisions and decisions[-1].sequence > seen:
            raise LedgerConflict(_lost_to(decisions[-1]))
        # What came first may be a mere registration, which changes nothing here: look again.
        with suppress(LedgerConflict):
            return append(store, name, entries, draft | {"action": action, "who": who, "why": why}, now)
        entries = read(store, name)
    raise LedgerConflict(f"Others wrote the ledger of {name!r} {ATTEMPTS} times in the meantime. Try again.")


def _last_sequence(store: Store, name: str, keys: Sequence[str] | None) -> int:
    """The highest number in the ledger of `name`, or 0."""
    prefix = f"{LEDGERS}{name}/"
    last = 0
    for key in store.keys(prefix) if keys is None else keys:
        number = key.removeprefix(prefix).removesuffix(".json")
        if not number.isdecimal() or key != entry_key(name, int(number)):
            raise LedgerError(f"The key {key!r} in {store.uri} is no ledger entry. Move it out of the ledger.")
        last = max(last, int(number))
    return last


def _read_entry(store: Store, name: str, sequence: int) -> Entry:
    """The entry with this number. Raises `LedgerError` where it is missing or not one."""
    key = entry_key(name, sequence)
    try:
        entry = Entry.model_validate_json(store.read(key))
    except NotInStore:
        raise LedgerError(f"The ledger of {name!r} has a gap: {key!r} is missing. Restore it from a backup.") from None
    except ValidationError as error:
        raise LedgerError(f"The ledger entry {key!r} cannot be read: {error}. Restore it from a backup.") from None
    if (entry.name, entry.sequence) != (name, sequence):
        raise LedgerError(
            f"The ledger entry {key!r} says that it is number {entry.sequence!r} of {entry.name!r}. "
            "Restore it from a backup."
        )
    return entry


def _registration(entries: Sequence[Entry], version: int | None) -> Entry | None:
    return next((entry for entry in entries if entry.action == "registered" and entry.version == version), None)


def _versions(entries: Sequence[Entry]) -> str:
    return listed(entry.version for entry in entries if entry.action == "registered")


def _lost_to(winner: Entry) -> str:
    return (
        f"{winner.who!r} wrote entry {winner.sequence} of {winner.name!r} first ({winner.action} version "
        f"{winner.version!r} at {winner.at}: {winner.why!r}). Look at it, and decide again."
    )
