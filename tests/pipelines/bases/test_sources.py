"""Each source gives exactly a base's files, or fails so that the next one is asked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.bases.pin import pin_base
from pipelines.bases.sources import SourceFailed, fetch
from pipelines.errors import BaseModelError
from pipelines.recipe import BasePin
from pipelines.store.s3 import S3Store

NEEDED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


@pytest.fixture
def wheel(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that carries the base below its package, where pip alone will look."""
    path = tmp_path / "wheels/tiny_base-0.1.0-py3-none-any.whl"
    path.parent.mkdir()
    about = "tiny_base-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_base/__init__.py", "raise SystemExit('a wheel is never imported')")
        for file in sorted(base.rglob("*")):
            if file.is_file():
                archive.write(file, f"tiny_base/model/{file.relative_to(base)}")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-base\nVersion: 0.1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def found(target: Path) -> list[str]:
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


def test_a_folder_gives_what_a_base_needs_and_no_code_or_pickle(base: Path, target: Path) -> None:
    fetch("file://base", None, base.parent, target)
    assert found(target) == NEEDED
    assert all((target / name).read_bytes() == (base / name).read_bytes() for name in NEEDED)


def test_a_folder_may_be_absolute(base: Path, target: Path, tmp_path: Path) -> None:
    fetch(f"file://{base}", None, tmp_path / "elsewhere", target)
    assert found(target) == NEEDED


@pytest.mark.parametrize("wanted", [["config.json"], ["onnx/config.json", "README.md"]])
def test_listed_files_come_alone(base: Path, target: Path, wanted: list[str]) -> None:
    fetch("file://base", wanted, base.parent, target)
    assert found(target) == sorted(wanted)


def test_what_a_folder_lacks_is_named(base: Path, target: Path) -> None:
    with pytest.raises(SourceFailed, match=r"it lacks \['a.json', 'b.json'\]"):
        fetch("file://base", ["config.json", "b.json", "a.json"], base.parent, target)
    with pytest.raises(SourceFailed, match=r"there is no folder '/.*nowhere'"):
        fetch("file://nowhere", None, base.parent, target)


@pytest.mark.parametrize("wanted", [None, NEEDED])
def test_a_wheel_gives_the_files_beside_its_config(wheel: Path, base: Path, target: Path, wanted: Any) -> None:
    fetch("pypi://tiny-base==0.1.0", wanted, base, target)
    assert found(target) == NEEDED
    assert (target / "config.json").read_text() == "{}"  # of the model itself, not of what lies deeper


def test_a_wheel_that_is_not_there(wheel: Path, base: Path, target: Path) -> None:
    with pytest.raises(SourceFailed, match=r"pip could not download it: ERROR: .*tiny-base==0\.2\.0"):
        fetch("pypi://tiny-base==0.2.0", None, base, target)
    assert found(target) == []


def test_a_wheel_without_a_model(wheel: Path, base: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if "/model/" not in name}
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    with pytest.raises(SourceFailed, match=r"the wheel holds no config\.json"):
        fetch("pypi://tiny-base==0.1.0", None, base, target)


def test_a_bucket_that_cannot_be_opened_fails_like_any_source(base: Path, target: Path) -> None:
    with pytest.raises(SourceFailed, match="No_Bucket"):
        fetch("s3://No_Bucket!/base", None, base, target)


def test_a_hub_needs_a_commit(base: Path, target: Path) -> None:
    with pytest.raises(BaseModelError, match=r"'hf://org/model' names no commit.*'hf://org/model@COMMIT'"):
        fetch("hf://org/model", None, base, target)


def test_a_hub_out_of_reach(base: Path, target: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(SourceFailed, match=r"^Offline"):
        fetch("hf://org/model@" + "0" * 40, None, base, target)


@pytest.mark.parametrize(("error", "words"), [(TimeoutError(), r"TimeoutError: \?"), (OSError("a\nb"), "OSError: a$")])
def test_whatever_the_hub_raises_is_told_in_a_line(
    base: Path, target: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    import huggingface_hub

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fails)
    with pytest.raises(SourceFailed, match=words):
        fetch("hf://org/model@" + "0" * 40, None, base, target)


@pytest.mark.parametrize("source", ["ftp://host/base", "base", "/a/folder", "HF://org/model@1"])
def test_another_kind_of_source_is_refused(base: Path, target: Path, source: str) -> None:
    with pytest.raises(BaseModelError) as caught:
        fetch(source, None, base, target)
    for part in (
        repr(source),
        "hf://ORG/MODEL@COMMIT",
        "pypi://PACKAGE==VERSION",
        "s3://BUCKET/PREFIX",
        "file://FOLDER",
    ):
        assert part in str(caught.value)


# Servers.


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A mirror in a bucket that keeps versions."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "PROMPTMINT_S3_ENDPOINT": f"http://{host}:{port}", "PROMPTMINT_S3_PATH_STYLE": "true",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    store = S3Store("s3://models/tiny/base")
    store._client.create_bucket(Bucket="models")
    store._client.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    yield store
    server.stop()


def test_a_bucket_gives_what_a_base_needs_and_versions_are_written_down(
    bucket: S3Store, base: Path, target: Path, pin: BasePin, tmp_path: Path
) -> None:
    for path in base.rglob("*"):
        if path.is_file():
            bucket.upload(path.relative_to(base).as_posix(), path)
    fetch(bucket.uri, None, tmp_path, target)
    assert found(target) == NEEDED
    with pytest.raises(SourceFailed, match=r"it lacks \['vocab.txt'\]"):
        fetch(bucket.uri, ["config.json", "vocab.txt"], tmp_path, target)
    store = S3Store("s3://models/store")
    mirrored = pin.model_copy(update={"sources": (bucket.uri,)})
    made = pin_base(store, mirrored, tmp_path, tmp_path / "scratch")
    assert made.source == bucket.uri and made.files == pin.files
    assert set(made.versions) == set(made.files)
    assert len(set(made.versions.values())) == 3  # two files have the same bytes, which the store keeps once
    assert pin_base(store, mirrored, tmp_path, tmp_path / "scratch") == made


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(base: Path) -> Iterator[str]:
    """The address of a server that answers as a hub does for `org/model` at one commit."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, _, name = self.path.partition(f"/org/model/resolve/{COMMIT}/")
            if self.path.startswith(f"/api/models/org/model/revision/{COMMIT}"):
                files = [{"rfilename": path.relative_to(base).as_posix()} for path in base.rglob("*") if path.is_file()]
                self.answer(json.dumps({"id": "org/model", "sha": COMMIT, "siblings": files}).encode())
            elif name and (base / name).is_file():
                self.answer((base / name).read_bytes())
            else:
                self.send_error(404)

        do_HEAD = do_GET

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("commit", "error"), [(COMMIT, None), ("f" * 40, "SourceFailed")])
def test_a_hub_gives_the_files_of_its_commit(
    hub: str, target: Path, tmp_path: Path, commit: str, error: str | None
) -> None:
    code = "import sys; from pathlib import Path; from pipelines.bases.sources import fetch; "
    code += f"fetch('hf://org/model@{commit}', None, Path(), Path(sys.argv[1]))"
    environment = {
        **os.environ, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"),
        "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], env=environment, cwd=Path(__file__).parents[3], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if error is None:
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in target.iterdir()) == NEEDED
    else:
        assert error in done.stderr and found(target) == []
