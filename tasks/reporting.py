"""What a person sees of a run in Prefect's UI and in MLflow: its report, its scores, and its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from mlflow_config import registry
from pipelines.bases.pin import base_record
from pipelines.evaluation.pages.evidence import gather
from pipelines.evaluation.pages.run import run_page
from pipelines.evaluation.report import columns, markdown, summary_rows
from pipelines.settings import cache_folder
from pipelines.store.opening import the_store
from pipelines.store.trees import load_tree
from tasks.retrying import RETRYING, telling_prefect

PAGE = "report.html"
DATA_DOCS = "data_docs"


@task(task_run_name="publish", **RETRYING)
def publish(record: Mapping[str, Any]) -> None:
    """Publish the run's report, its table of scores and its page, under the recipe's name."""
    with telling_prefect():
        _name_run(f"{record['recipe']}: {record['verdict']}")
        create_markdown_artifact(
            markdown(record), key=f"{record['recipe']}-report", description=f"Verdict: {record['verdict']}"
        )
        if rows := summary_rows(record):
            table = [dict(zip(columns(record), row, strict=True)) for row in rows]
            create_table_artifact(table, key=f"{record['recipe']}-scores", description="Scores on the test split")
        _publish_page(record)
        _publish_data_docs(record)


@task(task_run_name="publish unchanged", **RETRYING)
def publish_unchanged(earlier: Mapping[str, Any]) -> None:
    """Publish what an earlier run of equal inputs found, with a link to it where a server keeps it."""
    text = markdown({**earlier, "unchanged": True})
    with telling_prefect():
        _name_run(f"{earlier['recipe']}: unchanged")
        create_markdown_artifact(
            text, key=f"{earlier['recipe']}-report", description=f"Verdict: {earlier['verdict']}, as before"
        )
        if link := earlier.get("flow_run") and url_for("flow-run", obj_id=earlier["flow_run"]):
            create_link_artifact(link, "The run that found this", key=f"{earlier['recipe']}-earlier-run")


def _publish_page(record: Mapping[str, Any]) -> None:
    """Keep the page with the run in MLflow, and link it from here.

    Without the texts of the examples: who may read MLflow or Prefect need not be allowed to read the data.
    """
    store = the_store()
    page = run_page(record, gather(store, record, texts=False), base_record(store, record["base_digest"]))
    link = registry.attach(record, PAGE, page.encode())
    version = "" if record["version"] is None else f" version {record['version']}"
    text = f"{record['recipe']}{version}: {record['verdict']}"
    create_link_artifact(link, link_text=text, key=f"{record['recipe']}-page", description="The run on one page")


def _publish_data_docs(record: Mapping[str, Any]) -> None:
    """Keep what Great Expectations wrote of the data with the run in MLflow, and link it from here.

    The suites judge counts, so no text of an example stands there.
    """
    folder = load_tree(the_store(), record["data"]["tree"], cache_folder()) / DATA_DOCS
    link = registry.attach_folder(record, folder, "index.html", DATA_DOCS)
    create_link_artifact(
        link, "What was expected of the data", key=f"{record['recipe']}-data-docs", description="Data Docs"
    )


def _name_run(name: str) -> None:
    """Have the list of runs tell how this one ended."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(flow_run.id, name)
