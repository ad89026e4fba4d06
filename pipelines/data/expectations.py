"""What the accepted examples must be as a set: a Great Expectations suite, its verdict and its Data Docs.

Judged are tables of counts, not the examples: `groups`, one row for some ten thousand examples with what was seen in
them; `labels`, one row per label with its share and its training rows; and, where `min_rows_per_slice` is asked for,
`slices`, one row per value with its test rows. So a set of any size is judged alike.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from pipelines.data.passes import Counts
from pipelines.data.splits import SPLITS
from pipelines.recipe import Data

LIVE = "pandas"  # the name of the in-memory data source in the Data Docs


def check_set(groups: pd.DataFrame, counts: Counts, data: Data, folder: Path) -> list[dict[str, Any]]:
    """What was expected of the accepted rows, as `publish` has described their groups, and what was found.

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
    suites = [
        ("groups", groups, "group", _expected_of_groups(gx.expectations, data)),
    ]
    if data.target is None:
        suites.append(("labels", _labels(counts, data), "label", _expected_of_labels(gx.expectations, data)))
    if data.checks.min_rows_per_slice is not None:
        suites.append(("slices", _slices(counts, data), "slice", _expected_of_slices(gx.expectations, data)))
    for name, table, key, expected in suites:
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


def _labels(counts: Counts, data: Data) -> pd.DataFrame:
    """One row per label of the recipe: its share of all rows and how many rows train it."""
    labels = list(data.labels)
    rows = sum(counts.labels.values())
    share = [round(sum(counts.labels[side, label] for side in SPLITS) / rows, 6) for label in labels]
    return pd.DataFrame({"label": labels, "share": share, "train_rows": [counts.labels["train", x] for x in labels]})


def _slices(counts: Counts, data: Data) -> pd.DataFrame:
    """One row per value of each slice, and how many test rows have it."""
    found = [(f"{name}={value}", count) for name in data.slices for value, count in sorted(counts.slices[name].items())]
    return pd.DataFrame(found, columns=["slice", "test_rows"])


def _expected_of_groups(gxe: Any, data: Data) -> list[Any]:
    checks = data.checks
    known_labels = gxe.ExpectColumnValuesToBeBetween(
        column="unknown_labels", max_value=0, description=f"the {len(data.labels)} labels and no other"
    )
    return [
        gxe.ExpectColumnSumToBeBetween(
            column="rows", min_value=checks.min_rows, description=f"at least {checks.min_rows} accepted rows"
        ),
        *([] if data.target else [known_labels]),
        *(
            gxe.ExpectColumnValuesToBeBetween(
                column=f"{column}_{end}",
                min_value=least,
                max_value=checks.max_chars,
                description=f"{name} of {least} to {checks.max_chars} characters, the {end} of each group",
            )
            for column, name, least in _written(data)
            for end in ("shortest", "longest")
        ),
        gxe.ExpectColumnValuesToBeBetween(column="repeated_ids", max_value=0, description="no id twice"),
    ]


def _written(data: Data) -> list[tuple[str, str, int]]:
    """Every column of texts, what a description calls them, and how many characters each of them has at least."""
    read = ["text"] if data.pair is None else ["text", "pair"]
    written = [("target", "targets", 1)] if data.target else []
    return [*((name, "texts", data.checks.min_chars) for name in read), *written]


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


def _expected_of_slices(gxe: Any, data: Data) -> list[Any]:
    least = data.checks.min_rows_per_slice
    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="test_rows", min_value=least, description=f"at least {least} test rows for every value of a slice"
        )
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
