"""Three stores behind one fixture: a folder, moto's S3 server, and a real one (Ceph's radosgw) where installed."""

from __future__ import annotations

import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from moto.server import ThreadedMotoServer

from pipelines.store.local import LocalStore
from pipelines.store.s3 import S3Store
from pipelines.store.store import Store

RADOSGW = Path(__file__).parents[3] / "infra/s3/radosgw.sh"
# Nothing of the person who runs the tests: neither keys, nor a profile, nor the role of a cloud machine.
ALONE = {
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "2",
    "AWS_DEFAULT_REGION": "us-east-1",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


class FlakyProxy(ThreadingHTTPServer):
    """Hands requests on to `upstream`, but refuses some, loses the answers to some, and cuts some answers in half."""

    daemon_threads = True

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.upstream = upstream
        self.refused = 0  # how many requests from now on are answered with `status` and go nowhere
        self.status = 503
        self.lost = 0  # how many requests from now on take effect and are answered with 503 all the same
        self.cut = 0  # how many answers with a body from now on end in the middle of it
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"


class _Forward(BaseHTTPRequestHandler):
    server: FlakyProxy
    protocol_version = "HTTP/1.1"

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refused:
            self.server.refused -= 1
            return self._answer(self.server.status, {}, b"")
        upstream = HTTPConnection(*self.server.upstream)
        upstream.request(self.command, self.path, body, dict(self.headers.items()) | {"Expect": ""})
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if self.server.lost:
            self.server.lost -= 1
            return self._answer(503, {}, b"")
        return self._answer(answer.status, dict(answer.getheaders()), data)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "content-length", "date", "server", "transfer-encoding"):
                self.send_header(name, value)
        of_absent_body = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", of_absent_body)
        self.end_headers()
        if self.command != "HEAD" and self.server.cut and body:
            self.server.cut -= 1
            body, self.close_connection = body[: len(body) // 2], True
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _forward

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session", autouse=True)
def boto3_reads_its_models_once() -> Iterator[None]:
    """Every client parses the same megabytes of JSON, which would be half of the time that these tests take."""
    known: dict[str, Any] = {}
    load = JSONFileLoader._load_file

    def load_once(self: JSONFileLoader, path: str, open_method: Any) -> Any:
        if path not in known:
            known[path] = load(self, path, open_method)
        return known[path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "_load_file", load_once)
        yield


@pytest.fixture(scope="session")
def moto_env() -> Iterator[dict[str, str]]:
    """The environment in which boto3 speaks to moto's server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "PROMPTMINT_S3_ENDPOINT": f"http://{host}:{port}",
        "PROMPTMINT_S3_PATH_STYLE": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    server.stop()


@pytest.fixture(scope="session")
def radosgw_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which boto3 speaks to a radosgw of our own."""
    if missing := [name for name in ("radosgw", "ceph-mon", "ceph-osd", "ceph") if not shutil.which(name)]:
        pytest.skip(
            f"NO REAL S3 SERVER WAS TESTED: {', '.join(missing)} not installed "
            "(apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-mgr ceph-common)"
        )
    folder = tmp_path_factory.mktemp("radosgw") / "server"
    try:
        subprocess.run([RADOSGW, "start", folder], check=True, timeout=150)
        lines = (folder / "env").read_text().splitlines()
        yield dict(line.removeprefix("export ").split("=", 1) for line in lines)
    finally:
        subprocess.run([RADOSGW, "stop", folder], check=True, timeout=60)


@pytest.fixture
def moto_store(moto_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store in a new bucket that keeps versions, on moto's server."""
    return _store_in_new_bucket(moto_env, monkeypatch)


@pytest.fixture
def radosgw_store(radosgw_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store in a new bucket that keeps versions, on a real server."""
    return _store_in_new_bucket(radosgw_env, monkeypatch)


@pytest.fixture
def flaky(moto_env: dict[str, str], moto_store: S3Store) -> Iterator[FlakyProxy]:
    """A server that fails on demand, in front of the one that `moto_store` is on."""
    host, port = moto_env["PROMPTMINT_S3_ENDPOINT"].removeprefix("http://").split(":")
    proxy = FlakyProxy((host, int(port)))
    threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.fixture
def flaky_store(flaky: FlakyProxy, moto_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """The store of `moto_store`, reached through `flaky`."""
    monkeypatch.setenv("PROMPTMINT_S3_ENDPOINT", flaky.endpoint)
    return S3Store(moto_store.uri)


@pytest.fixture
def file_store(tmp_path: Path) -> LocalStore:
    """A store in a folder that is not there yet."""
    return LocalStore(tmp_path / "a folder" / "store")


@pytest.fixture(params=["file", "moto", pytest.param("radosgw", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest) -> Store:
    """Every store in turn: what is asked of one is asked of all."""
    kept: Store = request.getfixturevalue(f"{request.param}_store")
    return kept


@pytest.fixture(params=["file", "moto"])
def ledger_store(request: pytest.FixtureRequest) -> Store:
    """Every store in turn that can hold the ledger."""
    kept: Store = request.getfixturevalue(f"{request.param}_store")
    return kept


def _store_in_new_bucket(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in (ALONE | env).items():
        monkeypatch.setenv(name, value)
    store = S3Store(f"s3://bucket-{uuid.uuid4().hex}/some/prefix")
    store._client.create_bucket(Bucket=store.bucket)
    store._client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})
    return store
