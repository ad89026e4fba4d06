"""What only a store in a bucket can suffer: servers that fail, refuse, or take a conditional put for a plain one."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from moto.backends import get_backend

from pipelines.errors import AlreadyInStore, NotInStore, StoreError, TransientError
from pipelines.store.s3 import S3Store


def everything_in(store: S3Store) -> list[dict[str, Any]]:
    """Every version of every key in the store's bucket, and every marker of a deletion."""
    listed = store._client.list_object_versions(Bucket=store.bucket)
    return listed.get("Versions", []) + listed.get("DeleteMarkers", [])


@pytest.mark.s3
def test_a_server_that_ignores_conditions_cannot_hold_the_ledger(radosgw_store: S3Store) -> None:
    for _ in range(2):  # a refusal is not remembered as a proof
        with pytest.raises(StoreError, match=r"cannot hold the ledger: the server ignores If-None-Match.*") as refusal:
            radosgw_store.create("ledger/a/00000001.json", b"x")
        assert not isinstance(refusal.value, AlreadyInStore)
        assert "PROMPTMINT_LEDGER to 'file:///FOLDER'" in str(refusal.value)
    assert everything_in(radosgw_store) == []


def test_the_proof_is_made_once_and_leaves_nothing(moto_store: S3Store) -> None:
    asked: list[str] = []
    moto_store._client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    moto_store.create("ledger/1", b"x")
    assert asked.count("PutObject") == 3
    moto_store.create("ledger/2", b"x")
    assert asked.count("PutObject") == 4
    assert sorted(item["Key"] for item in everything_in(moto_store)) == ["some/prefix/ledger/1", "some/prefix/ledger/2"]


def test_a_create_whose_answer_was_lost_still_counts(flaky_store: S3Store, flaky: Any) -> None:
    flaky_store.create("ledger/1", b"x")
    flaky.lost = 1
    flaky_store.create("ledger/2", b"mine")
    assert flaky.lost == 0
    assert flaky_store.read("ledger/2") == b"mine"
    flaky.lost = 1
    with pytest.raises(AlreadyInStore):
        flaky_store.create("ledger/2", b"other")


def test_a_server_that_fails_once_is_asked_again(flaky_store: S3Store, flaky: Any) -> None:
    flaky.refused = 1
    flaky_store.write("a", b"x")
    assert flaky_store.read("a") == b"x"


def test_a_server_that_keeps_failing_is_worth_another_try_later(
    flaky_store: S3Store, flaky: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(17 * 1024 * 1024))
    flaky_store.upload("a", tmp_path / "file")
    for call in (
        lambda: flaky_store.read("a"),
        lambda: flaky_store.write("a", b"x"),
        lambda: flaky_store.create("b", b"x"),
        lambda: flaky_store.upload("a", tmp_path / "file"),
        lambda: flaky_store.download("a", tmp_path / "target"),
        lambda: flaky_store.has("a"),
        lambda: flaky_store.keys("a"),
        lambda: flaky_store.delete("a"),
    ):
        flaky.refused = 1000
        with pytest.raises(TransientError, match=rf"{flaky_store.uri} on {flaky.endpoint} refused \w+ with 503"):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("size_bytes", [1000, 40 * 1024 * 1024], ids=["small", "parts"])
def test_a_cut_answer_is_worth_another_try_later(
    flaky_store: S3Store, flaky: Any, moto_store: S3Store, tmp_path: Path, size_bytes: int
) -> None:
    moto_store.write("a", bytes(size_bytes))
    flaky.cut = 1000
    with pytest.raises(TransientError, match=rf"Cannot reach {flaky_store.uri} on {flaky.endpoint}"):
        flaky_store.read("a")
    flaky.cut = 3
    flaky_store.download("a", tmp_path / "target")  # what was cut is fetched again
    assert (tmp_path / "target").read_bytes() == bytes(size_bytes)
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_answers_that_bring_nothing_end_a_download(flaky_store: S3Store, flaky: Any, tmp_path: Path) -> None:
    flaky_store.write("a", b"x")
    (tmp_path / "target").write_bytes(b"as it was")
    flaky.cut = 1000  # half of a byte is none
    with pytest.raises(TransientError, match=rf"Cannot reach {flaky_store.uri}/a: 1 bytes did not come"):
        flaky_store.download("a", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"as it was"
    assert {path.name for path in tmp_path.iterdir()} == {"target", ".arriving-target", ".arriving-target.journal"}


@pytest.mark.parametrize(
    ("status", "kind", "wanted"),
    [
        (400, StoreError, r"refused PutObject with 400 .*check AWS_DEFAULT_REGION"),
        (403, StoreError, r"refused PutObject with 403 .*check AWS_ACCESS_KEY_ID"),
        (409, TransientError, r"refused PutObject with 409 .*Try again"),
        (429, TransientError, r"refused PutObject with 429 .*Try again"),
        (500, TransientError, r"refused PutObject with 500 .*Try again"),
        (501, StoreError, r"cannot hold the ledger: the server does not know conditional puts"),
    ],
)
def test_only_what_may_pass_is_worth_another_try(
    flaky_store: S3Store, flaky: Any, status: int, kind: type[Exception], wanted: str
) -> None:
    flaky.refused, flaky.status = 1000, status
    with pytest.raises(kind, match=wanted):
        flaky_store.create("a", b"x")


def test_a_server_without_encryption_is_not_tried_again(flaky: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMINT_S3_ENDPOINT", flaky.endpoint.replace("http", "https"))
    with pytest.raises(StoreError, match=r"Cannot use s3://bucket on https://127.*SSL.*PROMPTMINT_S3_\*"):
        S3Store("s3://bucket").read("a")


def test_a_server_that_does_not_run_is_worth_another_try_later(
    moto_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, so nobody else gets it; not listening, so nobody answers
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("PROMPTMINT_S3_ENDPOINT", endpoint)
        with pytest.raises(
            TransientError, match=rf"Cannot reach {moto_store.uri} on {endpoint}.*PROMPTMINT_S3_ENDPOINT"
        ):
            S3Store(moto_store.uri).read("a")


def test_a_missing_bucket_is_not_a_missing_key(moto_store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    store = S3Store("s3://no-such-bucket/prefix")
    for call in (
        lambda: store.read("a"),
        lambda: store.has("a"),
        lambda: store.keys(""),
        lambda: store.write("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: store.upload("a", tmp_path / "file"),
        lambda: store.download("a", tmp_path / "target"),
    ):
        with pytest.raises(StoreError, match=r"There is no bucket 'no-such-bucket' on http://127.0.0.1") as error:
            call()
        assert not isinstance(error.value, NotInStore)


@pytest.mark.s3
def test_wrong_keys_are_refused(radosgw_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    radosgw_store.write("a", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = S3Store(radosgw_store.uri)
    for call in (lambda: store.read("a"), lambda: store.has("a"), lambda: store.write("a", b"y")):
        with pytest.raises(StoreError, match=r"refused \w+ with 403 .*: check AWS_ACCESS_KEY_ID"):
            call()
    assert radosgw_store.read("a") == b"x"


def test_without_keys_it_says_which_to_set(moto_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match=r"There are no keys for s3://.*Set AWS_ACCESS_KEY_ID"):
        S3Store(moto_store.uri).read("a")


def test_more_keys_than_one_page_holds(moto_store: S3Store) -> None:
    bucket = get_backend("s3")["123456789012"]["aws"]
    names = sorted(f"many/{number}" for number in range(1234))
    for name in names:
        bucket.put_object(moto_store.bucket, f"some/prefix/{name}", b"")
    assert moto_store.keys("many/") == names


@pytest.mark.parametrize("server", ["moto", pytest.param("radosgw", marks=pytest.mark.s3)])
def test_checksums_travel_where_they_are_asked_for(
    server: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: S3Store = request.getfixturevalue(f"{server}_store")
    monkeypatch.setenv("PROMPTMINT_S3_CHECKSUMS", "when_supported")
    store = S3Store(plain.uri)
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    sent: list[dict[str, str]] = []
    for either in (plain, store):
        either._client.meta.events.register(
            "before-call.s3.PutObject", lambda params, **_: sent.append(params["headers"])
        )
    plain.upload("plain", tmp_path / "file")
    store.upload("file", tmp_path / "file")
    assert not [name for name in sent[0] if "checksum" in name.lower()]
    assert [name for name in sent[1] if "checksum" in name.lower() or "trailer" in name.lower()]
    store.download("file", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (tmp_path / "file").read_bytes()
    if server == "moto":
        head = store._client.head_object(Bucket=store.bucket, Key="some/prefix/file", ChecksumMode="ENABLED")
        digest = hashlib.sha256((tmp_path / "file").read_bytes()).digest()
        assert head["ChecksumSHA256"] == base64.b64encode(digest).decode()


@pytest.mark.parametrize("server", ["moto", pytest.param("radosgw", marks=pytest.mark.s3)])
def test_versions_are_told_apart(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    store: S3Store = request.getfixturevalue(f"{server}_store")
    versions = []
    for text in (b"one", b"two"):
        (tmp_path / "file").write_bytes(text)
        store.upload("a", tmp_path / "file")
        versions.append(store.version("a"))
    assert versions[0] != versions[1]
    old = store._client.get_object(Bucket=store.bucket, Key="some/prefix/a", VersionId=versions[0])
    assert old["Body"].read() == b"one"


@pytest.mark.parametrize("server", ["moto", pytest.param("radosgw", marks=pytest.mark.s3)])
def test_a_bucket_without_versions_has_no_version_ids(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    store: S3Store = request.getfixturevalue(f"{server}_store")
    (tmp_path / "file").write_bytes(b"x")
    store._client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Suspended"})
    store.upload("suspended", tmp_path / "file")
    assert store.version("suspended") is None
    store._client.create_bucket(Bucket=f"{store.bucket}-plain")
    plain = S3Store(f"s3://{store.bucket}-plain")
    plain.upload("a", tmp_path / "file")
    assert plain.version("a") is None


def test_a_prefix_keeps_stores_in_one_bucket_apart(moto_store: S3Store) -> None:
    whole, other = S3Store(f"s3://{moto_store.bucket}/"), S3Store(f"s3://{moto_store.bucket}/some/prefix2")
    moto_store.write("a", b"x")
    other.write("b", b"x")
    assert moto_store.keys("") == ["a"]
    assert whole.keys("") == ["some/prefix/a", "some/prefix2/b"]
    assert whole.uri == f"s3://{moto_store.bucket}"


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix", "s3://UPPER/prefix", "s3://a", "s3://under_score"])
def test_what_cannot_be_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(StoreError, match=r"cannot be a bucket's name .*'s3://BUCKET/PREFIX'"):
        S3Store(uri)


def test_what_cannot_be_a_prefix_is_refused() -> None:
    with pytest.raises(StoreError, match=r"The key 'a/../b' cannot be used"):
        S3Store("s3://bucket/a/../b")


def test_what_cannot_be_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTMINT_S3_ENDPOINT", "not a url")
    with pytest.raises(StoreError, match=r"Cannot speak to S3: Invalid endpoint: not a url.*PROMPTMINT_S3_ENDPOINT"):
        S3Store("s3://bucket")


def test_amazon_calls_a_version_null_where_it_keeps_none(moto_store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    moto_store._client.meta.events.register(
        "after-call.s3.HeadObject", lambda parsed, **_: parsed.update(VersionId="null")
    )
    moto_store.upload("a", tmp_path / "file")
    assert moto_store.version("a") is None
