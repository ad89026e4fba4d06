"""How much memory and time the stages of the data take.

    python benchmarks/data_scale/run.py --rows 10000000 [--keep]
    python benchmarks/data_scale/run.py --report                       what is kept here

A Parquet file of that many rows is made up: short texts, three labels, three countries as a slice, 1 % copies of other
texts, 1 % rows that break the contract. A process of its own then takes it through the stages as a run does: snapshot;
validate (contract, splits, leaks, copies, expectations); tokenize, each split. The tokenizer is a small one made on the
spot, so that the figures are of the stages and not of a vocabulary.

The last line is `{rows, peak_mib, seconds, ...}` of that process: `peak_mib` is its greatest resident set
(`getrusage`), `start_mib` what it was before the first row, with every library loaded. The exit code is 1 where the
peak is above --bound-mib. With --keep the result is kept in results/, one file that is never edited.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kept import another, keep

RESULTS = Path(__file__).parent / "results"
WORDS = [f"word{number}" for number in range(5000)]
LABELS = ("calm", "cross", "curious")
GROUP_ROWS = 100_000  # of the file that is made


def main() -> None:
    """Make the file, take it through the stages in a child process, and say what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--bound-mib", type=int, default=2048)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--stages", type=Path, help=argparse.SUPPRESS)  # the child: take the file in this folder
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    if arguments.stages:
        print(json.dumps(stages(arguments.stages)))
        return
    with tempfile.TemporaryDirectory(prefix="data-scale-") as name:
        folder = Path(name)
        make_file(folder / "rows.parquet", arguments.rows)
        make_tokenizer(folder / "base")
        size = (folder / "rows.parquet").stat().st_size
        print(f"made {arguments.rows:,} rows, {size / 2**20:,.0f} MiB of Parquet", flush=True)
        child = [sys.executable, str(Path(__file__)), "--stages", str(folder)]
        lines = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    result = {"rows": arguments.rows, **json.loads(lines[-1])}
    if arguments.keep:
        keep(another(RESULTS, f"scale-{arguments.rows}"), result, ("promptmint", "pyarrow", "pandas", "pandera"))
    print(json.dumps(result))
    raise SystemExit(result["peak_mib"] > arguments.bound_mib)


def make_file(path: Path, rows: int) -> None:
    """Write the rows, a row group at a time; the same for the same number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = random.Random(rows)
    schema = pa.schema([("text", pa.string()), ("label", pa.string()), ("country", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, GROUP_ROWS):
            count = min(GROUP_ROWS, rows - start)
            texts = [" ".join(draw.choices(WORDS, k=draw.randint(6, 18))) for _ in range(count)]
            labels: list[str | None] = draw.choices(LABELS, k=count)
            for number in range(0, count, 100):
                texts[number] = texts[draw.randrange(count)]
                labels[draw.randrange(count)] = draw.choice((None, "other"))
            columns = {"text": texts, "label": labels, "country": draw.choices(("de", "fr", "pl"), k=count)}
            writer.write_table(pa.table(columns, schema=schema))


def make_tokenizer(folder: Path) -> None:
    """A tokenizer that knows the words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    places = {word: place for place, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(places, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


def stages(folder: Path) -> dict[str, Any]:
    """What the stages made of the file in `folder`, and what they took."""
    import datasets  # noqa: F401  (loaded before the memory is looked at, like the next two)
    import great_expectations  # noqa: F401
    import pandera.pandas  # noqa: F401

    from pipelines.data.snapshot import snapshot
    from pipelines.data.validate import validate
    from pipelines.recipe import Data, Template
    from pipelines.store.local import LocalStore
    from pipelines.tokens.encode import load_tokenizer, tokenize

    load_tokenizer(folder / "base")
    store, cache = LocalStore(folder / "store"), folder / "cache"
    data = Data(path="rows.parquet", labels=LABELS, slices=("country",))
    begun = {"start_mib": peak_mib()}
    clock = [time.perf_counter()]
    digest = snapshot(store, data, folder).digest
    clock.append(time.perf_counter())
    found = validate(store, digest, data, cache)
    clock.append(time.perf_counter())
    validated = {"validate_peak_mib": peak_mib()}
    for tree in found["split_trees"].values():
        tokenize(store, tree, folder / "base", "0" * 64, Template(max_tokens=32), LABELS, cache)
    clock.append(time.perf_counter())
    seconds = {
        name: round(end - start, 1)
        for name, start, end in zip(("snapshot", "validate", "tokenize"), clock[:-1], clock[1:], strict=True)
    }
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "peak_mib": peak_mib(),
        "seconds": round(clock[-1] - clock[0], 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
        "stages_s": seconds,
        **begun,
        **validated,
        "found": {"ok": found["ok"], "splits": found["splits"], **found["rows"]},
    }


def peak_mib() -> int:
    """The greatest resident set of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def report() -> None:
    """Every run that is kept."""
    print("\nData at scale: the greatest resident set, and the time, of the stages from snapshot to tokens")
    results = [json.loads(path.read_bytes()) for path in RESULTS.glob("scale-*.json")]
    for result in sorted(results, key=lambda result: int(result["rows"])):
        print(
            f"  {result['rows']:>10,} rows: {result['peak_mib']:>5,} MiB ({result['start_mib']} before the first), "
            f"{result['seconds']:,.0f} s ({result['processor_seconds']:,.0f} of a processor)"
        )


if __name__ == "__main__":
    main()
