"""What the accepted examples must be as a set: a Great Expectations suite, its verdict and its Data Docs.

Two tables are judged: `examples`, one row each, and `labels`, one row per label with its share and its training rows.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.data.splits import text_columns
from pipelines.recipe import Data

LIVE = "pandas"  # the name of the in-memory data source in the Data Docs
CHARS = {"text": "chars", "pair": "pair_chars"}  # where the length of each text stands


def check_set(rows: pd.DataFrame, data: Data, folder: Path) -> list[dict[str, Any]]:
    """What was expected of the accepted rows (columns id, text, perhaps pair, label, split) and what was found.

    Each is `{expectation, column, description, success, observed}`. The same list is written to
    `folder/expectations.json`, and the Data Docs as a static site into `folder/data_docs/`.
    """
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # it sets itself to INFO
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    _one_site(context, folder / "data_docs")
    source = context.data_sources.add_pandas(LIVE)
    results: list[dict[str, Any]] = []
    for name, table, key, expected in (
        ("examples", _examples(rows), "id", _expected_of_examples(gx.expectations, data)),
        ("labels", _labels(rows, data), "label", _expected_of_labels(gx.expectations, data)),
    ):
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expected))
        check = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        report = check.run(
            batch_parameters={"dataframe": table},
            result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [key]},
            run_id=gx.RunIdentifier(run_name="validate"),
        )
        results += [_compact(result, key) for result in report.results]
    context.build_data_docs()
    for film in (folder / "data_docs" / "static" / "images").glob("*.gif"):
        film.unlink()  # 3 MB of films for a tutorial that this site does not offer
    (folder / "expectations.json").write_text(
        json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return results


def _one_site(context: Any, folder: Path) -> None:
    """Data Docs go to `folder` alone; the temporary site that an ephemeral context opens by itself is removed."""
    for site in (context.variables.data_docs_sites or {}).values():
        shutil.rmtree(site["store_backend"]["base_directory"], ignore_errors=True)
    context.variables.data_docs_sites = {}
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}
    context.add_data_docs_site(
        "data_docs",
        {
            "class_name": "SiteBuilder",
            "store_backend": store,
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )


def _examples(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per example: the lengths of its texts, without outer white space, instead of these."""
    lengths = {CHARS[name]: rows[name].str.strip().str.len() for name in text_columns(rows)}
    return rows.assign(**lengths)[["id", "label", "split", *lengths]]


def _labels(rows: pd.DataFrame, data: Data) -> pd.DataFrame:
    """One row per label of the recipe: its share of all rows and how many rows train it."""
    labels = list(data.labels)
    share = rows["label"].value_counts(normalize=True).reindex(labels, fill_value=0.0)
    train = rows.loc[rows["split"] == "train", "label"].value_counts().reindex(labels, fill_value=0)
    return pd.DataFrame({"label": labels, "share": share.round(6).to_list(), "train_rows": train.to_list()})


def _expected_of_examples(gxe: Any, data: Data) -> list[Any]:
    checks = data.checks
    return [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=checks.min_rows, description=f"at least {checks.min_rows} accepted rows"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="label", value_set=list(data.labels), description=f"the {len(data.labels)} labels and no other"
        ),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=column,
                min_value=checks.min_chars,
                max_value=checks.max_chars,
                description=f"texts of {checks.min_chars} to {checks.max_chars} characters",
            )
            for name, column in CHARS.items()
            if name == "text" or data.pair is not None
        ),
        gxe.ExpectColumnValuesToBeUnique(column="id", description="no id twice"),
    ]


def _expected_of_labels(gxe: Any, data: Data) -> list[Any]:
    checks = data.checks
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="share",
            min_value=checks.min_label_share,
            description=f"every label on at least {checks.min_label_share:.1%} of the accepted rows",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="train_rows",
            min_value=checks.min_rows_per_label,
            description=f"at least {checks.min_rows_per_label} training rows for every label",
        ),
    ]


def _compact(result: Any, key: str) -> dict[str, Any]:
    """One result of a suite, without what only a machine reads."""
    config = result.expectation_config
    return {
        "expectation": config.type,
        "column": config.kwargs.get("column"),
        "description": config.description,
        "success": bool(result.success),
        "observed": _observed(result.to_json_dict(), key),
    }


def _observed(result: dict[str, Any], key: str) -> Any:
    """The value found, or up to ten of the rows or values that are wrong, named by their key."""
    found = result["result"]
    if found.get("observed_value") is not None:
        return found["observed_value"]
    wrong: dict[str, Any] = {"unexpected": found.get("unexpected_count", 0)}
    if rows := found.get("unexpected_index_list"):
        wrong["rows"] = [
            {name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()} for row in rows[:10]
        ]
    if error := result.get("exception_info", {}).get("exception_message"):
        wrong["error"] = error
    return wrong
