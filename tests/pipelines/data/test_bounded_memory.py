from __future__ import annotations

import json
import random
import subprocess
import sys

import pandas as pd
import pytest

from pipelines.data import buckets, passes, reading, validate, writing
from pipelines.data.snapshot import snapshot
from pipelines.store.local import LocalStore
from pipelines.store.trees import load_tree


def mixed_rows(count):
    """Copies, leaks, slices, and faults of several types, in no order."""
    draw = random.Random(5)
    sides = ["train"] * 5 + ["dev", "test"]
    for number in range(count):
        words = " ".join(f"w{draw.randint(0, 60)}" for _ in range(draw.randint(0, 4)))
        yield {
            "text": words,
            "label": draw.choice("aabc"),
            "side": draw.choice(sides),
            "country": draw.choice(["de", "fr", None]),
            "number": number if number % 7 else "seven",
        }


def contents(store, report, cache):
    """Every table of a report as columns and values, and the trees of its splits."""
    folder = load_tree(store, report["tree"], cache)
    tables = {path.name: pd.read_parquet(path).astype(object).fillna("") for path in folder.glob("*.parquet")}
    plain = {name: [table.columns.to_list(), table.to_numpy().tolist()] for name, table in tables.items()}
    return plain | {"splits": report["split_trees"], "digests": report["split_digests"], "rows": report["rows"]}


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "x.csv"])
def test_pieces_of_any_size_give_the_same_bytes(write, make_data, tmp_path, monkeypatch, name):
    rows = list(mixed_rows(1500))
    if name == "x.parquet":
        rows = [{**row, "number": str(row["number"])} for row in rows]
    write(name, rows)
    data = make_data(name, split="side", slices=("country",), checks={"max_quarantined": 1.0})
    made = []
    for place in ("whole", "pieces"):
        if place == "pieces":
            monkeypatch.setattr(reading, "CHUNK_ROWS", 97)
            for module in (buckets, passes, validate):
                monkeypatch.setattr(module, "GROUP_ROWS", 120)
            monkeypatch.setattr(writing, "SPOOLED_BYTES", 4000)
        store = LocalStore(tmp_path / place)
        digest = snapshot(store, data, tmp_path / "folder").digest
        report = validate.validate(store, digest, data, tmp_path / f"{place}-cache")
        made.append(contents(store, report, tmp_path / f"{place}-cache"))
    assert made[0]["rows"]["leaks_dropped"] > 50 and made[0]["rows"]["quarantined"] > 50
    assert made[0] == made[1]


def test_row_groups_end_where_the_rows_say_not_the_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 1000)
    rows = pd.DataFrame({"text": ["x" * (number % 90) for number in range(400)] + ["long" * 500, "end"]})
    schema = writing.pa.schema([("text", writing.pa.string())])
    files = []
    for step in (1, 7, 500):
        files.append(tmp_path / f"{step}.parquet")
        with writing.Writer(files[-1], schema) as writer:
            for start in range(0, len(rows), step):
                writer.write(writing.table_of(rows[start : start + step], schema))
    assert len({file.read_bytes() for file in files}) == 1
    assert pd.read_parquet(files[0])["text"].to_list() == rows["text"].to_list()
    about = writing.pq.ParquetFile(files[0]).metadata
    assert about.num_row_groups > 15 and about.row_group(about.num_row_groups - 2).num_rows == 1


CHILD = """
import json, resource, sys
from pathlib import Path
from pipelines.data import buckets, reading, writing
from pipelines.data.snapshot import snapshot
from pipelines.data.validate import validate
from pipelines.recipe import Data
from pipelines.store.local import LocalStore

# Pieces as small beside this file as the real ones are beside 10 million rows.
reading.CHUNK_CHARS, buckets.GROUP_BYTES, writing.ROW_GROUP_BYTES = 1_000_000, 2_000_000, 4_000_000
peaks = []
for name in ("small", "large"):
    folder = Path(sys.argv[1])
    data = Data(path=f"{name}.parquet", labels=("a", "b"))
    store = LocalStore(folder / "store")
    report = validate(store, snapshot(store, data, folder).digest, data, folder / "cache")
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps({"growth": peaks[1] - peaks[0], "rows": report["rows"]["accepted"]}))
"""


def test_a_file_much_larger_than_the_memory_it_takes(tmp_path):
    """60 MB of texts in one row group; as Python strings alone they would take as much."""
    pa, pq = writing.pa, writing.pq
    for name, count in (("small", 1000), ("large", 20_000)):
        draw = random.Random(1)
        texts = [f"{number} " + draw.randbytes(1500).hex() for number in range(count)]
        table = pa.table({"text": texts, "label": ["a", "b"] * (count // 2)})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=count)
        megabytes = sum(map(len, texts)) / 1e6
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True)
    found = json.loads(child.stdout.splitlines()[-1])
    assert found["rows"] == 20_000 and megabytes > 58
    assert found["growth"] < megabytes, f"the peak grew by {found['growth']:.0f} MiB"
