"""What a person sees of a run in Prefect's UI and in MLflow: its report, its scores, and its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from mlflow_config import registry
from pipelines.bases.pin import base_record
from pipelines.evaluation.pages.evidence import gather
from pipelines.evaluation.pages.run import run_page
from pipelines.evaluation.report import COLUMNS, markdown, summary_rows
from pipelines.store.store import the_store
from tasks.retrying import RETRYING

PAGE = "report.html"


@task(**RETRYING)
def publish(record: Mapping[str, Any]) -> None:
    """Publish the run's report, its table of scores and its page, under the recipe's name."""
    create_markdown_artifact(markdown(record), key=f"{record['recipe']}-report", description=record["reason"])
    if rows := summary_rows(record):
        table = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
        create_table_artifact(table, key=f"{record['recipe']}-scores", description="Scores on the test split")
    if record["version"] is not None:
        _publish_page(record)


def _publish_page(record: Mapping[str, Any]) -> None:
    """Keep the page with the version's run in MLflow, and link it from here.

    Without the texts of the examples: who may read MLflow or Prefect need not be allowed to read the data.
    """
    store = the_store()
    page = run_page(record, gather(store, record, texts=False), base_record(store, record["base_digest"]))
    link = registry.attach(record["recipe"], record["version"], PAGE, page.encode())
    text = f"{record['recipe']} version {record['version']}: {record['verdict']}"
    create_link_artifact(link, link_text=text, key=f"{record['recipe']}-page", description="The run on one page")
