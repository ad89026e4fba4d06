"""What infra/ and prefect.yaml say, checked as far as that goes without Docker, a cluster or an account."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.automations import Automation
from prefect.events.schemas.automations import EventTrigger
from prefect.events.schemas.events import Event, Resource
from prefect.server.utilities.user_templates import render_user_template_sync
from prefect.utilities.callables import parameter_schema

from pipelines.errors import RecipeError
from pipelines.known import find_recipe, known_recipes
from pipelines.training.compute import load_compute
from tasks.watching import EVENT

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
STORE = INFRA / "aws" / "store.yaml"


class Tagged(yaml.SafeLoader):
    """YAML with CloudFormation's short functions: `!Ref X` is read as `{"Ref": "X"}`."""


Tagged.add_multi_constructor("!", lambda _, name, node: {name: node.value})


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.load_all((INFRA / name).read_text(encoding="utf-8"), Tagged))  # `Tagged` is a SafeLoader


def texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


@pytest.fixture(scope="module")
def deployments() -> dict[str, dict[str, Any]]:
    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return {deployment["name"]: deployment for deployment in listed}


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    (compose,) = documents("compose/compose.yaml")
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def test_the_readme_has_a_line_for_every_file() -> None:
    named = set(re.findall(r"^\| `(\S+)` \|", (INFRA / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == {path.relative_to(INFRA).as_posix() for path in INFRA.rglob("*.*") if path.is_file()} - {
        "README.md"
    } | {"docker/Dockerfile"}


@pytest.mark.parametrize("path", sorted((INFRA / "compute").glob("*.toml")), ids=lambda path: path.stem)
def test_every_compute_profile_loads_and_says_all_of_it(path: Path) -> None:
    fields = type(load_compute(path)).model_fields
    of_several_hosts = {name for name, field in fields.items() if field.default is None}
    named = set(tomllib.loads(path.read_text()))
    assert named in (set(fields), set(fields) - of_several_hosts)


# prefect.yaml


def test_every_deployment_calls_a_flow_with_parameters_it_has(deployments: dict[str, dict[str, Any]]) -> None:
    for deployment in deployments.values():
        module, _, function = deployment["entrypoint"].rpartition(".")
        flow = getattr(import_module(module), function)
        given = set(deployment.get("parameters", {}))
        for trigger in deployment.get("triggers", []):
            given |= set(trigger["parameters"])
        assert given <= set(signature(flow.fn).parameters), deployment["name"]


def test_every_deployment_goes_to_a_declared_pool_and_names_no_folder(deployments: dict[str, dict[str, Any]]) -> None:
    pools = {pool["name"]: pool for pool in documents("prefect/work-pools.yaml")[0]["pools"]}
    for deployment in deployments.values():
        assert pools[deployment["work_pool"]["name"]]["type"] == "process"
        assert "pull" not in deployment
        assert not [text for text in texts(deployment) if text.startswith(("/", "~"))]


def test_the_recipes_that_deployments_name_are_in_the_tree(deployments: dict[str, dict[str, Any]]) -> None:
    known = known_recipes(ROOT / "recipes")
    assert deployments["retrain-scheduled"]["parameters"]["recipe"] in known
    assert set(deployments["watch"]["parameters"]["recipes"]) <= set(known)


def test_retraining_waits_its_turn(deployments: dict[str, dict[str, Any]]) -> None:
    retraining = [d for d in deployments.values() if d["entrypoint"] == "flows.retrain.retrain"]
    assert len(retraining) == 3
    assert all(d["concurrency_limit"]["collision_strategy"] == "ENQUEUE" for d in retraining)


def test_every_parameter_of_a_deployment_is_typed_and_told(deployments: dict[str, dict[str, Any]]) -> None:
    for deployment in deployments.values():
        module, _, function = deployment["entrypoint"].rpartition(".")
        schema = parameter_schema(getattr(import_module(module), function)).model_dump()
        for name, parameter in schema["properties"].items():
            assert parameter.get("type") or parameter.get("anyOf"), (function, name)
            assert len(parameter.get("description", "")) > 10, (function, name)
        assert deployment["description"]


def test_events_told_are_those_that_are_waited_for(deployments: dict[str, dict[str, Any]]) -> None:
    (trigger,) = deployments["retrain-on-new-data"]["triggers"]
    assert trigger["expect"] == [EVENT]


@pytest.mark.parametrize("payload", [{}, {"recipe": ""}, {"recipe": ["sst2"]}, {"recipe": {"name": "sst2"}}, {"x": 1}])
def test_an_event_with_no_payload_or_another_names_no_recipe(
    deployments: dict[str, dict[str, Any]], payload: dict[str, Any]
) -> None:
    """The run that follows then fails in sight; without a default in the template there would be none."""
    (trigger,) = deployments["retrain-on-new-data"]["triggers"]
    event = Event(event=EVENT, resource=Resource({"prefect.resource.id": "anybody"}), payload=payload)
    named = render_user_template_sync(trigger["parameters"]["recipe"], {"event": event})
    with pytest.raises(RecipeError, match=r"There is no recipe named .*Known names: .*'sst2'"):
        find_recipe(named, ROOT / "recipes")


def test_the_automation_is_one_that_prefect_takes() -> None:
    (automation,) = documents("prefect/automations.yaml")[0]["automations"]
    made = Automation.model_validate(automation)
    assert isinstance(made.trigger, EventTrigger) and made.trigger.posture == "Proactive"


# Docker and compose


def test_images_run_without_root_and_serving_has_the_core_only() -> None:
    dockerfile = (INFRA / "docker" / "Dockerfile").read_text(encoding="utf-8")
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", dockerfile, re.M | re.S))
    assert set(stages) == {"base", "pipeline", "serving"}
    assert all("USER 10001" in stages[name] for name in ("pipeline", "serving"))
    assert "[pipeline,checks]" in stages["pipeline"]
    assert "[pipeline" not in stages["serving"]


def test_images_are_built_from_every_package() -> None:
    kept = (INFRA / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    wanted = {*packages, "recipes", "prefect.yaml", "constraints.txt", "pyproject.toml", project["project"]["readme"]}
    assert {f"!{name}" for name in wanted} <= set(kept)
    assert kept[1] == "**"  # nothing that is not named


def test_compose_publishes_on_this_machine_only(services: dict[str, dict[str, Any]]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_refers_to_what_it_declares(services: dict[str, dict[str, Any]]) -> None:
    (compose,) = documents("compose/compose.yaml")
    for service in services.values():
        assert set(service.get("depends_on", [])) <= set(services)
        mounted = {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith((".", "$"))}
        assert mounted <= set(compose["volumes"])
        assert {config["source"] for config in service.get("configs", [])} <= set(compose["configs"])
        if "build" in service:
            assert (INFRA / "compose" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    awaited = [name for name, how in services["worker"]["depends_on"].items() if how["condition"] == "service_healthy"]
    assert all("healthcheck" in services[name] for name in awaited)


def test_compose_holds_no_key(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if name.startswith("AWS_") and name != "AWS_DEFAULT_REGION":
                assert value.startswith(f"${{{name}:?")  # no default: compose stops and says what to choose


# Kubernetes


def test_the_gpu_job_template_uses_exactly_its_variables() -> None:
    template = json.loads((INFRA / "kubernetes" / "gpu-job-template.json").read_text(encoding="utf-8"))
    used = {name for text in texts(template["job_configuration"]) for name in re.findall(r"{{ (\w+) }}", text)}
    assert used == set(template["variables"]["properties"])
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "{{ gpus }}"
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_pods_find_their_settings_and_accounts_and_are_not_root() -> None:
    objects = documents("kubernetes/settings.yaml") + documents("kubernetes/worker.yaml")
    named = {(thing["kind"], thing["metadata"]["name"]) for thing in objects}
    template = json.loads((INFRA / "kubernetes" / "gpu-job-template.json").read_text(encoding="utf-8"))
    (deployment,) = [thing for thing in objects if thing["kind"] == "Deployment"]
    job = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    variables = template["variables"]["properties"]
    for pod, account in (
        (deployment["spec"]["template"]["spec"], deployment["spec"]["template"]["spec"]["serviceAccountName"]),
        (job, variables["service_account_name"]["default"]),
    ):
        assert ("ServiceAccount", account) in named
        assert ("ConfigMap", pod["containers"][0]["envFrom"][0]["configMapRef"]["name"]) in named
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert ("Namespace", variables["namespace"]["default"]) in named
    assert all(thing["metadata"].get("namespace") == "promptmint" for thing in objects if thing["kind"] != "Namespace")


def test_the_cluster_runs_the_pinned_prefect() -> None:
    (pinned,) = re.findall(r"^prefect==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (image,) = re.findall(r"prefecthq/prefect:(\S+)-python", (INFRA / "kubernetes" / "worker.yaml").read_text())
    assert image == pinned


def test_the_cluster_pool_has_the_template_it_names() -> None:
    pools = documents("prefect/work-pools.yaml")[0]["pools"]
    assert [pool["name"] for pool in pools if "base_job_template" in pool] == ["promptmint-gpu"]
    assert all((ROOT / pool["base_job_template"]).is_file() for pool in pools if "base_job_template" in pool)
    assert "--pool=promptmint-gpu" in list(texts(documents("kubernetes/worker.yaml")))


# AWS


def test_the_template_passes_cfn_lint() -> None:
    api = pytest.importorskip("cfnlint.api")
    config = pytest.importorskip("cfnlint.config")
    assert api.lint(STORE.read_text(encoding="utf-8"), config=config.ManualArgs(regions=["eu-central-1"])) == []


def test_the_bucket_is_versioned_encrypted_private_and_kept() -> None:
    bucket = documents("aws/store.yaml")[0]["Resources"]["Store"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    properties = bucket["Properties"]
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4


def test_serving_only_reads_and_nobody_removes_a_version_of_what_is_kept() -> None:
    resources = documents("aws/store.yaml")[0]["Resources"]
    serving = resources["ServingPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    actions = {action for statement in serving for action in statement["Action"]}
    assert actions == {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject", "s3:GetObjectVersion"}
    pipeline = resources["PipelinePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    for statement in pipeline:
        assert not any("*" in action for action in statement["Action"])
        if "s3:DeleteObjectVersion" in statement["Action"]:
            assert statement["Resource"] == {"Sub": "${Store.Arn}/${Prefix}/probe/*"}
