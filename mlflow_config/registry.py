"""The registry: one registered model per recipe, a version per scored prompt, aliases projected from the ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_config import names
from mlflow_config.package import log_model
from mlflow_config.tracking import connected, experiment_id
from pipelines.errors import RegistryError, listed
from pipelines.settings import tracking_uri


@dataclass(frozen=True)
class Version:
    """A registered version: its number, when it was registered in milliseconds since 1970, and its tags."""

    number: int
    registered_ms: int
    tags: dict[str, str]


def register(recipe: str, artifact: Path, record: Mapping[str, Any], files: Mapping[str, bytes]) -> int:
    """The version under which a scored prompt is registered; the same one however often it is asked for.

    Args:
        recipe: the registered model's name.
        artifact: the folder of the prompt's artifact, provenance included.
        record: the run's record: its figures become metrics, its digests tags.
        files: reports to keep with the run, by name.

    Raises:
        TransientError: MLflow cannot be reached.
        RegistryError: MLflow refuses.
    """
    with connected() as client, tempfile.TemporaryDirectory(prefix="promptmint-register-") as scratch:
        _ensure_model(client, recipe)
        if (version := _version_of_run(client, recipe, record["run_key"])) is not None:
            return version
        about = {names.TAG_RUN_KEY: record["run_key"]}
        run = client.create_run(experiment_id(client), run_name=_run_name(recipe, record["run_key"]), tags=about)
        run_id = run.info.run_id
        try:
            _log_figures(client, run_id, record)
            for name, content in files.items():
                path = Path(scratch) / name
                path.write_bytes(content)
                client.log_artifact(run_id, str(path))
            uri, model_id = log_model(run_id, artifact, Path(scratch))
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")
        made = client.create_model_version(
            recipe, source=uri, run_id=run_id, tags=tags(record), description=record["reason"], model_id=model_id
        )
        return _first(client, recipe, record["run_key"], int(made.version))


def attach(record: Mapping[str, Any], name: str, content: bytes) -> str:
    """Where a person opens the file `name`, now kept with a run in MLflow; what had its name is replaced.

    Raises `TransientError` or `RegistryError`.
    """
    with tempfile.TemporaryDirectory(prefix="promptmint-attach-") as scratch:
        path = Path(scratch) / name
        path.write_bytes(content)
        return attach_folder(record, Path(scratch), name)


def attach_folder(record: Mapping[str, Any], folder: Path, name: str, inside: str | None = None) -> str:
    """Where a person opens `name`, a file of `folder`, all of whose files are now kept with a run in MLflow.

    They are kept in the folder `inside` of the run's artifacts, or at their top. The run is that of the record's
    version; where it was refused before there was one, it is a run of its own.

    Raises `TransientError` or `RegistryError`.
    """
    with connected() as client:
        run = _run_of(client, record)
        client.log_artifacts(run.run_id, str(folder), inside)
    name = name if inside is None else f"{inside}/{name}"
    server = tracking_uri().rstrip("/")
    if server.startswith(("http://", "https://")):
        return f"{server}/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/{name}"
    return f"{run.artifact_uri}/{name}"


def project(recipe: str, champion: int | None, challenger: int | None) -> None:
    """Make MLflow's aliases say what the ledger says. Raises `TransientError` or `RegistryError`."""
    with connected() as client:
        current = client.get_registered_model(recipe).aliases
        for alias, version in {names.CHAMPION: champion, names.CHALLENGER: challenger}.items():
            if version is not None and str(current.get(alias)) != str(version):
                client.set_registered_model_alias(recipe, alias, str(version))
            elif version is None and alias in current:
                client.delete_registered_model_alias(recipe, alias)


def version_tags(recipe: str, version: int) -> dict[str, str]:
    """The tags of a registered version: its verdict and every digest.

    Raises:
        RegistryError: there is none, or somebody else registered it.
    """
    with connected() as client:
        found = client.search_model_versions(f"name = '{recipe}' and version_number = {version}")
    if not found:
        raise RegistryError(f"There is no version {version!r} of {recipe!r}. `promptmint status {recipe}` shows them.")
    tags = dict(found[0].tags)
    if missing := {names.TAG_ARTIFACT, names.TAG_PROMPT} - tags.keys():
        raise RegistryError(
            f"Version {version!r} of {recipe!r} is no soft prompt of promptmint's: it has no tag {listed(missing)}. "
            f"`promptmint status {recipe}` shows those that are."
        )
    return tags


def versions(recipe: str) -> list[Version]:
    """Every registered version of a recipe, the newest first. Raises `TransientError` or `RegistryError`."""
    found: list[Version] = []
    with connected() as client:
        token = None
        while token != "":
            page = client.search_model_versions(f"name = '{recipe}'", max_results=1000, page_token=token)
            found += [Version(int(each.version), each.creation_timestamp, dict(each.tags)) for each in page]
            token = page.token or ""
    return sorted(found, key=lambda version: -version.number)


def digests() -> set[str]:
    """Every digest that a tag of any registered version names. Raises `TransientError` or `RegistryError`."""
    found: set[str] = set()
    with connected() as client:
        token = None
        while token != "":
            page = client.search_model_versions(max_results=1000, page_token=token)
            found |= {value for version in page for key, value in version.tags.items() if key in names.DIGESTS}
            token = page.token or ""
    return found


def registered() -> list[str]:
    """The names of all registered soft prompts. Raises `TransientError` or `RegistryError`."""
    with connected() as client:
        return sorted(model.name for model in client.search_registered_models())


def resolve(recipe: str, alias: str) -> int:
    """The version an alias stands on.

    Raises:
        RegistryError: no such model, or no such alias; the message names those there are.
    """
    with connected() as client:
        found = client.search_registered_models(f"name = '{recipe}'")
        if not found:
            known = sorted(model.name for model in client.search_registered_models())
            raise RegistryError(f"No soft prompt {recipe!r} is registered. Registered: {known!r}.")
        aliases = client.get_registered_model(recipe).aliases
        if alias not in aliases:
            raise RegistryError(f"{recipe!r} has no {alias!r}; it has {dict(aliases)!r}. Promote a version first.")
        return int(aliases[alias])


def tags(record: Mapping[str, Any]) -> dict[str, str]:
    """The tags of the version that a run's record was registered as."""
    return {
        names.TAG_VERDICT: record["verdict"],
        names.TAG_RUN_KEY: record["run_key"],
        names.TAG_PROMPT: record["prompt_digest"],
        names.TAG_BASE: record["base_digest"],
        names.TAG_DATA: record["data_digest"],
        names.TAG_RECIPE: record["recipe_digest"],
        names.TAG_ARTIFACT: record["artifact"],
    }


def _run_of(client: Any, record: Mapping[str, Any]) -> Any:
    """MLflow's run of a record, made where no version has brought one."""
    if record["version"] is not None:
        return client.get_run(client.get_model_version(record["recipe"], str(record["version"])).run_id).info
    experiment, key = experiment_id(client), record["run_key"]
    asked = f"tags.`{names.TAG_RUN_KEY}` = '{key}' and attributes.status = 'FINISHED'"
    if found := client.search_runs([experiment], asked, max_results=1):
        return found[0].info
    about = {names.TAG_RUN_KEY: key, names.TAG_VERDICT: record["verdict"], "mlflow.note.content": record["reason"]}
    run = client.create_run(experiment, run_name=_run_name(record["recipe"], key), tags=about).info
    _log_figures(client, run.run_id, record)
    client.set_terminated(run.run_id, "FINISHED")
    return run


def _run_name(recipe: str, run_key: str) -> str:
    return f"{recipe} {run_key[:8]}"


def _ensure_model(client: Any, recipe: str) -> None:
    from mlflow.exceptions import MlflowException

    def there() -> bool:
        return bool(client.search_registered_models(f"name = '{recipe}'"))

    if not there():
        try:
            client.create_registered_model(
                recipe, description=f"Soft prompts tuned by the recipe {recipe!r} of promptmint."
            )
        except MlflowException:
            if not there():  # else another process was sooner
                raise


def _version_of_run(client: Any, recipe: str, run_key: str) -> int | None:
    found = client.search_model_versions(f"name = '{recipe}' and tags.`{names.TAG_RUN_KEY}` = '{run_key}'")
    return min((int(version.version) for version in found), default=None)


def _first(client: Any, recipe: str, run_key: str, made: int) -> int:
    """The version of a run that was registered first; `made` is taken back where another process was sooner.

    Two processes are at the same run where one of them lost its turn without knowing: a server's clock that jumped, or
    a network that was gone for longer than a lease. Versions are numbered in the order in which they are made, so both
    name the same one.
    """
    first = _version_of_run(client, recipe, run_key)
    if first is None or first == made:
        return made
    client.delete_model_version(recipe, str(made))
    return first


def _log_figures(client: Any, run_id: str, record: Mapping[str, Any]) -> None:
    """The recipe's parameters, what every method scored, and the curves of each training."""
    from mlflow.entities import Metric, Param

    params = [Param(key, str(value)[:500]) for key, value in _flat(record["settings"]).items()]
    metrics = [
        Metric(f"{method}/{figure}", float(value), 0, 0)
        for method, scores in record["scores"].items()
        for figure, value in (scores or {}).items()
        if isinstance(value, int | float)
    ]
    for method, went in record.get("trained", {}).items():
        metrics += [Metric(f"{method}/loss", loss, 0, step) for step, loss in went["curve"]]
        metrics += [
            Metric(f"{method}/validation_accuracy", epoch["validation_accuracy"], 0, epoch["epoch"])
            for epoch in went["epochs"]
        ]
    for start in range(0, max(len(metrics), len(params)), 100):
        client.log_batch(run_id, metrics=metrics[start : start + 100], params=params[start : start + 100])


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat
