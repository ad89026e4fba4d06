"""The packaged model: what `mlflow.pyfunc.load_model` runs, in a process that may know nothing of promptmint.

MLflow copies this file into the model and executes it there ("models from code": no pickle). The code that answers
travels beside it in the artifact `code` and is imported under the digest of its bytes, so that a host's own package
called `pipelines` is never taken for it. The base is not in the model: it comes from the store, by digest.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import pandas as pd


class PackagedPrompt(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Texts in (a column `text`, and `pair` for a prompt that reads two); labels and probabilities out, or texts."""

    def load_context(self, context: Any) -> None:
        """Verify prompt and base by their digests, replay the proof, and be ready."""
        prompt, code = Path(context.artifacts["prompt"]), Path(context.artifacts["code"])
        predictor = import_travelling(code, "inference.predictor")
        provenance = json.loads((prompt / "provenance.json").read_bytes())
        store = os.environ.get("PROMPTMINT_STORE") or provenance["store"]
        base = predictor.base_from_store(prompt, store)
        self.predictor = predictor.load_predictor(prompt, base, provenance["prompt_digest"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A row per text: `label`, `probability`, and `probabilities` as JSON; or `text`, where the prompt writes."""
        columns = [model_input[name].astype(str).tolist() for name in ("text", "pair") if name in model_input]
        if self.predictor.writes:
            return pd.DataFrame({"text": self.predictor.generate(*columns)})
        answers = self.predictor.predict(*columns)
        return pd.DataFrame(
            {
                "label": [answer.label for answer in answers],
                "probability": [answer.probability for answer in answers],
                "probabilities": [json.dumps(answer.probabilities) for answer in answers],
            }
        )


def import_travelling(code: Path, module: str) -> ModuleType:
    """A module of the code that travels in the model, under a package name made of the digest of that code."""
    digest = hashlib.sha256()
    for path in sorted(code.rglob("*.py")):
        digest.update(path.relative_to(code).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    package = f"promptmint_{digest.hexdigest()[:16]}"
    if package not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            package, code / "__init__.py", submodule_search_locations=[str(code)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"The model's code in {str(code)!r} cannot be imported: it has no __init__.py.")
        sys.modules[package] = root = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(root)
    return importlib.import_module(f"{package}.{module}")


mlflow.models.set_model(PackagedPrompt())
