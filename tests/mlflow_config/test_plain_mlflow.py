"""The packaged model in a new environment where nobody has heard of promptmint.

The base comes from a bucket. The host has a package of its own called `pipelines`, which must not be touched, and loads
no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from mlflow_config import registry
from mlflow_config.tracking import connected
from pipelines.inference.predictor import load_predictor
from pipelines.store.s3 import S3Store
from pipelines.store.trees import save_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
TEXTS = ["my invoice is wrong", "please help me with my password today", "the refund again"]
PREDICT = """
import importlib.util, json, sys
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/tickets@champion")
answers = model.predict(pandas.DataFrame({"text": sys.argv[1:]})).to_dict(orient="records")
ours = sorted({name.split(".")[0] for name in sys.modules} & {"pipelines", "promptmint", "mlflow_config"})
print(json.dumps({"answers": answers, "ours": ours}))
"""


@pytest.fixture
def bucket(mlflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A store in a new bucket, as the settings name it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "PROMPTMINT_STORE": f"s3://bucket-{uuid.uuid4().hex}/prefix",
        "PROMPTMINT_S3_ENDPOINT": f"http://{host}:{port}",
        "PROMPTMINT_S3_PATH_STYLE": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    store = S3Store(os.environ["PROMPTMINT_STORE"])
    store._client.create_bucket(Bucket=store.bucket)
    yield store
    server.stop()


@pytest.fixture
def requirements(bucket: S3Store, minted: Any, record: dict[str, Any], tmp_path: Path) -> Path:
    """What the model of a new champion asks for; its base is in the bucket, its version in the registry."""
    save_tree(bucket, minted.base_folder)
    artifact = Path(shutil.copytree(minted.folder, tmp_path / "prompt"))
    provenance = {"store": bucket.uri, "prompt_digest": minted.digest}
    (artifact / "provenance.json").write_text(json.dumps(provenance))
    version = registry.register("tickets", artifact, record | {"prompt_digest": minted.digest}, {})
    registry.project("tickets", champion=version, challenger=None)
    with connected() as client:
        source = client.get_model_version_download_uri("tickets", str(version))
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(f"{source}/requirements.txt", dst_path=str(tmp_path / "asked")))


@pytest.fixture(params=["shared", pytest.param("installed", marks=pytest.mark.long)])
def clean(request: pytest.FixtureRequest, requirements: Path, tmp_path: Path) -> Path:
    """The `bin` of a new environment: with the packages of this one, or with what the model asks for and no more."""
    folder = tmp_path / "venv"
    if request.param == "installed":
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [folder / "bin/pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt"]
        done = subprocess.run([*command, "-r", requirements], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return folder / "bin"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    # A line in a .pth file: what .pth files over there add, like an editable promptmint, is not seen.
    (packages / "shared.pth").write_text("\n".join(site.getsitepackages()))
    uvicorn = folder / "bin" / "uvicorn"  # which `mlflow models serve` looks for on the PATH
    uvicorn.write_text(f"#!{folder}/bin/python\nfrom uvicorn.main import main\n\nmain()\n")
    uvicorn.chmod(0o755)
    return folder / "bin"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Where the serving team works; its own packages raise when somebody takes them for ours."""
    for name in ("pipelines", "promptmint"):
        (tmp_path / "host" / name).mkdir(parents=True)
        (tmp_path / "host" / name / "__init__.py").write_text("raise RuntimeError('the package of the host')\n")
    return tmp_path / "host"


@pytest.fixture
def environment(clean: Path, host: Path, mlflow_home: Path, tmp_path: Path) -> dict[str, str]:
    """What a process there sees: its own packages first, no pickle, an empty cache."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": f"{clean}:{os.environ['PATH']}",
        "PYTHONPATH": str(host),
        "MLFLOW_TRACKING_URI": f"sqlite:///{mlflow_home}/mlflow.db",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PROMPTMINT_HOME": str(tmp_path / "empty"),
    }


@pytest.fixture
def wanted(minted: Any) -> list[dict[str, Any]]:
    """What our own predictor answers."""
    answers = load_predictor(minted.folder, minted.base_folder).predict(TEXTS)
    return [{"label": each.label, "probability": each.probability, **each.probabilities} for each in answers]


def flat(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"label": each["label"], "probability": each["probability"], **json.loads(each["probabilities"])}
        for each in answers
    ]


def test_it_answers_like_ours(
    clean: Path, host: Path, environment: dict[str, str], wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    nothing_of_ours = (
        "import importlib.util as u; print([u.find_spec(name) for name in ('mlflow_config', 'promptmint')])"
    )
    done = subprocess.run(
        [clean / "python", "-c", nothing_of_ours], cwd=tmp_path, env=environment | {"PYTHONPATH": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[None, None]", done.stderr

    done = subprocess.run(
        [clean / "python", "-c", PREDICT, *TEXTS],
        cwd=host,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ours"] == []
    assert flat(found["answers"]) == [pytest.approx(each, abs=1e-6) for each in wanted]

    answers = served(clean, host, environment, tmp_path / "serve.log")
    assert flat(answers) == [pytest.approx(each, abs=1e-6) for each in wanted]


def served(clean: Path, host: Path, environment: dict[str, str], log: Path) -> list[dict[str, Any]]:
    """What `mlflow models serve` answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        clean / "python", "-m", "mlflow", "models", "serve", "--model-uri", "models:/tickets@champion",
        "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=host, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while True:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            predictions: list[dict[str, Any]] = json.load(answer)["predictions"]
            return predictions
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)
