"""Equal things have equal digests, different things different ones, whatever order they come in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.digests import (
    canonical_json,
    digest_bytes,
    digest_file,
    digest_files,
    digest_folder,
    digest_json,
    folder_files,
    short,
)

# Text without lone surrogates: those have no UTF-8.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
names = st.text("abü .-", min_size=1, max_size=6).filter(lambda name: name.strip(". "))
folders = st.dictionaries(
    st.tuples(st.sampled_from(["", "x/", "x/y/"]), names).map("".join), st.binary(max_size=20), max_size=5
)


def shuffled(value: Any, random: Any) -> Any:
    """The same value with the keys of every dictionary in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, random)) for key, item in value.items()]
        random.shuffle(items)
        return dict(items)
    return [shuffled(item, random) for item in value] if isinstance(value, list) else value


@given(values, st.randoms())
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: Any, random: Any) -> None:
    assert canonical_json(shuffled(value, random)) == canonical_json(value)


@given(values)
def test_canonical_json_keeps_the_value(value: Any) -> None:
    data = canonical_json(value)
    again = json.loads(data.decode("utf-8"))
    assert again == value
    assert canonical_json(again) == data
    assert b"\n" not in data


@given(values, values)
def test_digests_are_equal_exactly_when_the_bytes_are(one: Any, other: Any) -> None:
    assert (digest_json(one) == digest_json(other)) == (canonical_json(one) == canonical_json(other))
    if one != other:
        assert digest_json(one) != digest_json(other)


def test_canonical_json_is_written_like_this_for_ever() -> None:
    value = {"b": [1, 2.5, -0.0, 1e100, None, True], "a": 'é\u2028"\\\n', "Z": {}, "ä": "🙂"}
    assert canonical_json(value).decode() == (
        '{"Z":{},"a":"é\u2028\\"\\\\\\n","b":[1,2.5,-0.0,1e+100,null,true],"ä":"🙂"}'
    )
    assert digest_json({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, {"a": float("-inf")}], "\ud800"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant|surrogates not allowed"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", {"a": object()}, Path("x")])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@given(st.binary(max_size=300))
def test_a_file_has_the_digest_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "file"
    path.write_bytes(data)
    assert digest_file(path) == digest_bytes(data) == hashlib.sha256(data).hexdigest()


@given(files=folders)
def test_a_folder_has_the_digest_of_its_files(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    for name, data in reversed(files.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    assert digest_folder(folder) == digest_files({name: digest_bytes(data) for name, data in files.items()})
    assert [path.relative_to(folder).as_posix() for path in folder_files(folder)] == sorted(files)
    (folder / "one more").write_bytes(b"")
    assert digest_folder(folder) != digest_files({name: digest_bytes(data) for name, data in files.items()})


def test_a_folder_digest_sees_names_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a").write_bytes(b"x")
    (other / "sub" / "a").chmod(0o700)
    (other / "empty").mkdir()
    assert digest_folder(one) == digest_folder(other)
    (other / "sub" / "a").rename(other / "sub" / "b")
    assert digest_folder(one) != digest_folder(other)
    (other / "sub" / "b").rename(other / "sub" / "a")
    (other / "sub" / "a").write_bytes(b"y")
    assert digest_folder(one) != digest_folder(other)


def test_a_short_digest_begins_like_the_whole() -> None:
    assert short(digest_bytes(b"")) == "e3b0c44298fc"
