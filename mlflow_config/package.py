"""A prompt wrapped for MLflow: its artifact, and beside it the code that answers."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pipelines

# What answers, and nothing that trains or judges. These files import each other relatively and promptmint never.
TRAVELLING = (
    "__init__.py", "digests.py", "errors.py", "settings.py",
    "recipe/__init__.py", "recipe/drift.py", "recipe/gates.py", "recipe/generation.py", "recipe/load.py",
    "recipe/methods.py", "recipe/problem.py", "recipe/recipe.py", "recipe/section.py", "recipe/sweep.py",
    "store/__init__.py", "store/local.py", "store/opening.py", "store/ranged.py", "store/s3.py", "store/store.py",
    "store/trees.py", "store/uploads.py",
    "tokens/__init__.py", "tokens/targets.py", "tokens/template.py",
    "prompts/__init__.py", "prompts/artifact.py",
    "inference/__init__.py", "inference/attention.py", "inference/base.py", "inference/blocks.py",
    "inference/buckets.py", "inference/features.py", "inference/forward.py", "inference/generation.py",
    "inference/inserted.py", "inference/instance.py", "inference/label_words.py", "inference/mixed.py",
    "inference/packing.py", "inference/predictor.py", "inference/writing.py",
)  # fmt: skip
ANSWER = {"label": "string", "probability": "double", "probabilities": "string"}
TEXT = {"text": "string"}  # of a prompt that writes
NEEDED = (
    "mlflow", "torch", "transformers", "safetensors", "numpy", "pandas", "pydantic", "boto3", "urllib3", "filelock",
)  # fmt: skip


def copy_code(target: Path) -> None:
    """Put the travelling code into `target`."""
    root = Path(pipelines.__file__).parent
    for name in TRAVELLING:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target / name)


def requirements() -> list[str]:
    """What the model needs beside itself, at the versions of here.

    Without what stands behind a `+`: a build for one kind of machine, which most indexes have never heard of.
    """
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in NEEDED]


def _columns(prompt: Path) -> tuple[list[str], dict[str, str]]:
    """What the model in an artifact's folder is asked with, a text or two, and the columns of its answers."""
    card = json.loads((prompt / "prompt.json").read_bytes())
    asked = ["text", "pair"] if "{pair}" in card["template"]["text"] else ["text"]
    return asked, TEXT if card["head"]["kind"] == "generation" else ANSWER


def log_model(run_id: str, prompt: Path, scratch: Path) -> tuple[str, str]:
    """The URI and the id of the packaged model, logged to a run.

    Args:
        run_id: the MLflow run.
        prompt: the artifact's folder, provenance included.
        scratch: an empty folder.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    copy_code(scratch / "code")
    asked, answered = _columns(prompt)
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", name) for name in asked]),
        outputs=Schema([ColSpec(kind, name) for name, kind in answered.items()]),
    )
    with mlflow.start_run(run_id=run_id):
        logged: Any = mlflow.pyfunc.log_model(
            name="prompt",
            python_model=str(Path(__file__).with_name("prompt_model.py")),
            artifacts={"prompt": str(prompt), "code": str(scratch / "code")},
            signature=signature,
            pip_requirements=requirements(),
        )
    return str(logged.model_uri), str(logged.model_id)
