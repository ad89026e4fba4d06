"""The error tree is the one its docstring draws, and every command ends with a code of its own."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from pipelines import errors
from pipelines.errors import PromptmintError, listed

TREE = {
    error.__name__: error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, PromptmintError)
}
DRAWN = re.findall(
    r"^ {4}([│├└─ ]*)(\w+Error|\w+Store|\w+Object|\w+Conflict) +(?:exit +)?(\d*)", errors.__doc__ or "", re.M
)


def test_the_docstring_draws_the_tree() -> None:
    assert {name for _, name, _ in DRAWN} == set(TREE)
    above: dict[int, str] = {}
    for lines, name, code in DRAWN:
        depth = len(lines) // 4
        above[depth] = name
        if depth:
            assert TREE[name].__bases__ == (TREE[above[depth - 1]],), name
        if code:
            assert TREE[name].exit_code == int(code), name


def test_a_family_shares_its_exit_code_and_no_other_has_it() -> None:
    families = [error for error in TREE.values() if PromptmintError in error.__bases__]
    codes = [error.exit_code for error in families]
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 3} & set(codes)  # done; anything unforeseen; refused, where the user asked for that
    for error in TREE.values():
        assert error.exit_code in codes or error is PromptmintError


@pytest.mark.parametrize("name", TREE)
def test_an_error_crosses_the_process_boundary_by_name_and_message(name: str) -> None:
    """As a worker writes it and its launcher raises it again."""
    written = json.loads(json.dumps({"error": name, "message": "what happened: 'ä'"}))
    again = getattr(errors, written["error"])(written["message"])
    assert type(again) is TREE[name] and str(again) == "what happened: 'ä'"


def test_alternatives_are_sorted_and_quoted() -> None:
    assert listed({"b": 1, "a": 2}) == "'a', 'b'"
    assert listed([3, Path("x")]) == "'3', 'x'"
    assert listed([]) == "(none)"
