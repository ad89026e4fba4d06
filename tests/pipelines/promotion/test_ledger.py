from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.digests import canonical_json, digest_bytes
from pipelines.errors import AlreadyInStore, LedgerConflict, LedgerError
from pipelines.promotion.ledger import Entry, State, append, entry_key, promote, read, register, roll_back, state
from pipelines.store.local import LocalStore

Registered = Callable[..., Entry]
NAME = "tickets"


def crown(store: LocalStore, version: int, **more: object) -> Entry:
    return promote(store, NAME, version, who="ann", why="better", **more)  # type: ignore[arg-type]


def now(store: LocalStore) -> State:
    return state(read(store, NAME))


def test_nothing_was_ever_registered(store: LocalStore) -> None:
    assert read(store, NAME) == []
    assert now(store) == State(champion=None, challenger=None, previous=None, history=(), sequence=0)


def test_an_entry_lies_where_the_layout_says_and_carries_its_predecessor(
    store: LocalStore, registered: Registered
) -> None:
    first = registered(store, 1)
    second = crown(store, 1, now=datetime(2025, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert store.keys("ledger/") == ["ledger/tickets/00000001.json", "ledger/tickets/00000002.json"]
    assert read(store, NAME) == [first, second]
    assert first.previous_digest is None
    assert second.previous_digest == first.digest == digest_bytes(store.read(entry_key(NAME, 1)))
    assert json.loads(store.read(entry_key(NAME, 2))) == {
        "sequence": 2,
        "name": "tickets",
        "action": "promoted",
        "version": 1,
        "prompt_digest": f"{1:064x}",
        "verdict": "passed",
        "run_key": "run-1",
        "who": "ann",
        "why": "better",
        "at": "2025-03-01T10:00:00.000000+00:00",
        "previous_digest": first.digest,
    }


def test_the_clock_is_utc_by_default(store: LocalStore, registered: Registered) -> None:
    at = datetime.fromisoformat(registered(store, 1).at)
    assert at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)


def test_clocks_that_jump_change_no_order_and_no_champion(store: LocalStore, registered: Registered) -> None:
    ahead, back = datetime(2100, 1, 1, tzinfo=UTC), datetime(1980, 1, 1, tzinfo=UTC)
    for version in (1, 2):
        registered(store, version)
    crown(store, 1, now=ahead)
    seen = now(store).sequence
    crown(store, 2, now=back)
    registered(store, 3)
    assert [entry.sequence for entry in read(store, NAME)] == [1, 2, 3, 4, 5]
    assert (now(store).champion, now(store).previous, now(store).challenger) == (2, 1, 3)
    with pytest.raises(LedgerConflict, match=r"entry 4 .*promoted version 2 at 1980-"):
        crown(store, 3, expected=seen, now=ahead)
    roll_back(store, NAME, who="bob", why="slow", now=back)
    assert now(store).champion == 1


def test_registering_twice_is_registering_once(store: LocalStore, registered: Registered) -> None:
    first = registered(store, 1)
    registered(store, 2)
    assert registered(store, 1) == first
    assert len(read(store, NAME)) == 2
    with pytest.raises(LedgerError, match=r"Version 1 of 'tickets' is registered as prompt 000000000000 \(passed\)"):
        registered(store, 1, "refused")


def test_names_have_ledgers_of_their_own(store: LocalStore, registered: Registered) -> None:
    registered(store, 1)
    register(store, "tickets-2", 7, prompt_digest="x", verdict="passed", run_key="r", who="flow", why="")
    assert [entry.version for entry in read(store, NAME)] == [1]
    assert [entry.sequence for entry in read(store, "tickets-2")] == [1]


def test_the_challenger_is_the_newest_that_passed_after_the_champion(store: LocalStore, registered: Registered) -> None:
    registered(store, 1)
    registered(store, 2)
    assert (now(store).champion, now(store).challenger) == (None, 2)
    registered(store, 3, "refused")
    assert now(store).challenger == 2
    crown(store, 2)
    assert (now(store).champion, now(store).challenger) == (2, None)  # version 1 is older than the champion
    registered(store, 4)
    registered(store, 5, "inconclusive")
    assert now(store).challenger == 4


def test_a_version_that_was_rolled_back_is_no_challenger(store: LocalStore, registered: Registered) -> None:
    for version in (1, 2):
        registered(store, version)
        crown(store, version)
    roll_back(store, NAME, who="bob", why="wrong labels")
    assert (now(store).champion, now(store).challenger) == (1, None)


def test_only_a_registered_version_is_promoted(store: LocalStore, registered: Registered) -> None:
    with pytest.raises(LedgerError, match=r"no version 1 of 'tickets' to promote. Registered: \(none\)"):
        crown(store, 1)
    registered(store, 3)
    with pytest.raises(LedgerError, match="Registered: '3'"):
        crown(store, 1)


@pytest.mark.parametrize("verdict", ["refused", "inconclusive"])
def test_only_a_passed_version_is_promoted_unless_forced_with_a_reason(
    store: LocalStore, registered: Registered, verdict: str
) -> None:
    registered(store, 1, verdict)
    for why, force in (("good enough", False), ("  ", True)):
        with pytest.raises(LedgerError, match=f"is '{verdict}', and only 'passed' is promoted"):
            promote(store, NAME, 1, who="ann", why=why, force=force)
    entry = promote(store, NAME, 1, who="ann", why="the old one is offensive", force=True)
    assert (entry.verdict, now(store).champion) == (verdict, 1)


def test_promoting_the_champion_changes_nothing(store: LocalStore, registered: Registered) -> None:
    registered(store, 1)
    first = crown(store, 1)
    registered(store, 2)
    assert crown(store, 1) == crown(store, 1, expected=1) == first
    assert len(read(store, NAME)) == 3


def test_a_decision_on_an_old_state_is_a_conflict_that_names_the_winner(
    store: LocalStore, registered: Registered
) -> None:
    registered(store, 1)
    registered(store, 2)
    seen = now(store).sequence
    promote(store, NAME, 1, who="bob", why="first come")
    with pytest.raises(LedgerConflict, match=r"'bob' wrote entry 3 .*promoted version 1 .*'first come'"):
        crown(store, 2, expected=seen)
    crown(store, 2)
    with pytest.raises(LedgerConflict, match="'ann' wrote entry 4"):
        roll_back(store, NAME, who="bob", why="", expected=3)


def test_a_registration_in_between_is_no_conflict(store: LocalStore, registered: Registered) -> None:
    registered(store, 1)
    seen = now(store).sequence
    registered(store, 2)
    assert crown(store, 1, expected=seen).sequence == 3


@pytest.mark.parametrize("expected", [-1, 2])
def test_a_decision_on_a_state_that_never_was_is_refused(
    store: LocalStore, registered: Registered, expected: int
) -> None:
    registered(store, 1)
    with pytest.raises(LedgerError, match=f"ends at entry 1; it has no entry {expected}"):
        crown(store, 1, expected=expected)


def test_rolling_back_twice_goes_back_twice(store: LocalStore, registered: Registered) -> None:
    for version in (1, 2, 3):
        registered(store, version)
        crown(store, version)
    assert roll_back(store, NAME, who="bob", why="slow").version == 2
    assert roll_back(store, NAME, who="bob", why="slow").version == 1
    with pytest.raises(LedgerError, match=r"to an earlier champion\. Champion now: 1; possible: '2', '3'"):
        roll_back(store, NAME, who="bob", why="slow")
    assert roll_back(store, NAME, 3, who="bob", why="it was not that").action == "rolled-back"
    assert now(store) == State(champion=3, challenger=None, previous=1, history=(1, 2, 3, 2, 1, 3), sequence=9)


def test_rolling_back_needs_an_earlier_champion(store: LocalStore, registered: Registered) -> None:
    with pytest.raises(LedgerError, match=r"Champion now: None; possible: \(none\)"):
        roll_back(store, NAME, who="bob", why="")
    for version in (1, 2, 3):
        registered(store, version)
    crown(store, 1)
    crown(store, 2)
    with pytest.raises(LedgerError, match=r"to version 3, which never was champion\. Champion now: 2; possible: '1'"):
        roll_back(store, NAME, 3, who="bob", why="")
    before = read(store, NAME)
    assert roll_back(store, NAME, 2, who="bob", why="") == before[-1]
    assert read(store, NAME) == before


def test_append_is_a_compare_and_set(store: LocalStore, registered: Registered) -> None:
    registered(store, 1)
    entries = read(store, NAME)
    draft = entries[0].model_dump(include={"version", "prompt_digest", "verdict", "run_key"}) | {"action": "promoted"}
    won = append(store, NAME, entries, draft | {"who": "ann", "why": ""})
    assert won.sequence == 2
    with pytest.raises(LedgerConflict, match="'ann' wrote entry 2"):
        append(store, NAME, entries, draft | {"who": "bob", "why": ""})
    with pytest.raises(LedgerError, match="Not an entry for the ledger of 'tickets'"):
        append(store, NAME, read(store, NAME), {"action": "crowned"})
    assert read(store, NAME) == [*entries, won]


class Forgetful(LocalStore):
    """A store whose answer to a create gets lost, so that it is sent again."""

    def create(self, key: str, data: bytes) -> None:
        super().create(key, data)
        raise AlreadyInStore(f"Something lies under {key!r}.")


def test_a_create_that_was_sent_twice_has_won(tmp_path: Path, registered: Registered) -> None:
    store = Forgetful(tmp_path)
    assert [registered(store, 1), crown(store, 1)] == read(store, NAME)


class Busy(LocalStore):
    """A store in which somebody else is always faster, `rivals` times."""

    def __init__(self, folder: Path, rivals: list[Callable[[LocalStore], object]]) -> None:
        super().__init__(folder)
        self.rivals = rivals

    def create(self, key: str, data: bytes) -> None:
        if self.rivals:
            self.rivals.pop(0)(LocalStore(self.folder))
        super().create(key, data)


def test_whoever_is_overtaken_by_registrations_queues_behind(tmp_path: Path, registered: Registered) -> None:
    store = Busy(tmp_path, [lambda s: registered(s, 10), lambda s: registered(s, 11)])
    assert registered(store, 1).sequence == 3
    store.rivals = [lambda s: registered(s, 12)]
    assert crown(store, 1).sequence == 5
    store.rivals = [lambda s: registered(s, 13)]
    assert crown(store, 1).sequence == 5


def test_whoever_is_overtaken_by_a_promotion_is_told_unless_it_was_the_same(
    tmp_path: Path, registered: Registered
) -> None:
    store = Busy(tmp_path, [])
    for version in (1, 2, 3):
        registered(store, version)
    store.rivals = [lambda s: crown(s, 2)]
    with pytest.raises(LedgerConflict, match="'ann' wrote entry 4"):
        promote(store, NAME, 1, who="bob", why="")
    store.rivals = [lambda s: crown(s, 3)]
    assert promote(store, NAME, 3, who="bob", why="").who == "ann"
    store.rivals = [lambda s: roll_back(s, NAME, who="ann", why="slow")]
    assert roll_back(store, NAME, who="bob", why="slow").who == "ann"  # once, not twice
    assert now(store).champion == 2


def test_nobody_waits_for_ever(tmp_path: Path, registered: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.promotion.ledger.ATTEMPTS", 2)
    store = Busy(tmp_path, [lambda s: registered(s, 10), lambda s: registered(s, 11)])
    with pytest.raises(LedgerConflict, match="2 times"):
        registered(store, 1)
    registered(store, 1)
    store.rivals = [lambda s: registered(s, 12), lambda s: registered(s, 13)]
    with pytest.raises(LedgerConflict, match="2 times"):
        crown(store, 1)


def damaged(store: LocalStore, number: int, **changes: object) -> None:
    entry = json.loads(store.read(entry_key(NAME, number)))
    store.write(entry_key(NAME, number), canonical_json(entry | changes))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda s: damaged(s, 2, why="never said"), "was changed: entry 3"),
        (lambda s: damaged(s, 1, verdict="refused"), "was changed: entry 2"),
        (lambda s: damaged(s, 1, previous_digest="0" * 64), "was changed: entry 1"),
        (lambda s: damaged(s, 3, previous_digest=None), "was changed: entry 3"),
        (lambda s: damaged(s, 2, sequence=3), "says that it is number 3 of 'tickets'"),
        (lambda s: damaged(s, 2, name="other"), "says that it is number 2 of 'other'"),
        (lambda s: damaged(s, 3, action="crowned"), "cannot be read"),
        (lambda s: damaged(s, 3, extra=1), "cannot be read"),
        (lambda s: s.write(entry_key(NAME, 3), b"{"), "cannot be read"),
        (lambda s: s.delete(entry_key(NAME, 2)), "has a gap: 'ledger/tickets/00000002.json'"),
        (lambda s: s.delete(entry_key(NAME, 1)), "has a gap: 'ledger/tickets/00000001.json'"),
        (lambda s: s.write("ledger/tickets/4.json", b""), "'ledger/tickets/4.json' in .* is no ledger entry"),
        (lambda s: s.write("ledger/tickets/notes.txt", b""), "is no ledger entry"),
    ],
)
def test_a_damaged_ledger_is_never_read(
    store: LocalStore, registered: Registered, damage: Callable[[LocalStore], None], says: str
) -> None:
    registered(store, 1)
    crown(store, 1)
    registered(store, 2)
    damage(store)
    for act in (lambda: read(store, NAME), lambda: crown(store, 2), lambda: registered(store, 3)):
        with pytest.raises(LedgerError, match=says):
            act()


class Model:
    """Who reigns, kept the naive way: a stack of reigns and a set of what passed."""

    def __init__(self) -> None:
        self.registered: list[tuple[int, str]] = []
        self.reigns: list[int] = []
        self.history: list[int] = []

    def challenger(self) -> int | None:
        found = None
        for version, verdict in self.registered:
            if self.reigns and version == self.reigns[-1]:
                found = None
            elif verdict == "passed" and version not in self.history:
                found = version
        return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), st.sampled_from(["passed", "refused", "inconclusive"])),
        st.tuples(st.just("promote"), st.integers(1, 8)),
        st.tuples(st.just("force"), st.integers(1, 8)),
        st.tuples(st.just("back"), st.none() | st.integers(1, 8)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_history_folds_into_the_same_state_as_the_naive_model(steps: list[tuple[str, object]]) -> None:
    with TemporaryDirectory() as folder:
        store, model = LocalStore(Path(folder)), Model()
        for step, value in steps:
            try:
                _take(store, model, step, value)
            except LedgerError:
                assert not _allowed(model, step, value)
            found = now(store)
            assert found.champion == (model.reigns[-1] if model.reigns else None)
            assert found.history == tuple(model.history)
            assert found.challenger == model.challenger()
            assert found.sequence == len(model.registered) + len(model.history)


def _allowed(model: Model, step: str, value: object) -> bool:
    if step == "promote":
        return (value, "passed") in model.registered
    if step == "force":
        return value in [version for version, _ in model.registered]
    if step == "back":
        return len(model.reigns) > 1 if value is None else value in model.history
    return True


def _take(store: LocalStore, model: Model, step: str, value: object) -> None:
    """Do one step to the ledger, and where that was not refused, to the model."""
    if step == "register":
        version = len(model.registered) + 1
        register(store, NAME, version, prompt_digest="x", verdict=str(value), run_key="r", who="f", why="")
        model.registered.append((version, str(value)))
        return
    if step == "back":
        entry = roll_back(store, NAME, value, who="ann", why="")  # type: ignore[arg-type]
    else:
        entry = promote(store, NAME, value, who="ann", why="so", force=step == "force")  # type: ignore[arg-type]
    assert _allowed(model, step, value)
    if model.reigns and model.reigns[-1] == entry.version:
        return
    model.history.append(entry.version)
    if step != "back" or entry.version not in model.reigns:
        model.reigns.append(entry.version)
        return
    model.reigns.pop()
    while model.reigns[-1] != entry.version:
        model.reigns.pop()
