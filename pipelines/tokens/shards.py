"""A folder that the library datasets loads, written batch by batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

BATCH_ROWS = 1000  # of a record batch: what `Dataset.save_to_disk` makes, so that the bytes are the same
SHARD_BYTES = 500 * 1000 * 1000  # of a file: the same library's

TOKENS = "tokens"  # the kind of a column of token ids
OF_CLASSES = {"id": "string", "label": "int32", "length": "int32", "input_ids": TOKENS}  # label: its place
OF_TEXTS = {  # `input` is what rows with the same input share; `target` is the text, and `target_ids` end with its end
    "id": "string", "input": "string", "target": "string", "length": "int32", "input_ids": TOKENS, "target_ids": TOKENS,
}  # fmt: skip


class Shards:
    """Encoded examples in files of at most some `SHARD_BYTES`, with what `datasets.load_from_disk` reads of them.

    `Dataset.map` and `save_to_disk` would have all of them in memory, or map a file of them. The fingerprint is ours:
    the one that datasets computes is another one as soon as the tokenizer was called.
    """

    def __init__(self, folder: Path, fingerprint: str, columns: Mapping[str, str] = OF_CLASSES) -> None:
        import datasets

        datasets.disable_progress_bars()
        tokens = datasets.List(datasets.Value("int32"))
        types = {name: tokens if kind == TOKENS else datasets.Value(kind) for name, kind in columns.items()}
        self._features = datasets.Features(types)
        self._folder, self._fingerprint = folder, fingerprint
        self._files: list[Path] = []
        self._writer: Any = None
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_file()
        if kind is None:
            self._name_files()

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Append examples: the values of every column, in the order of the columns."""
        table = pa.table(dict(columns), schema=self._features.arrow_schema)
        if self._writer is None or self._bytes + table.nbytes > SHARD_BYTES:
            self._end_file()
            self._begin_file()
        self._writer.write_table(table)
        self._bytes += table.nbytes

    def _begin_file(self) -> None:
        from datasets.arrow_writer import ArrowWriter

        self._files.append(self._folder / f"data-{len(self._files)}.arrow")
        self._writer = ArrowWriter(features=self._features, path=str(self._files[-1]))
        self._bytes = 0

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.finalize()
        self._writer = None

    def _name_files(self) -> None:
        """Give the files the names that tell how many there are, and list them in the folder's state."""
        import datasets

        nothing = datasets.table.InMemoryTable(self._features.arrow_schema.empty_table())
        datasets.Dataset(nothing, fingerprint=self._fingerprint).save_to_disk(self._folder)
        count = len(self._files)
        names = [f"data-{place:05d}-of-{count:05d}.arrow" for place in range(count)]
        for path, name in zip(self._files, names, strict=True):
            path.rename(self._folder / name)
        state = self._folder / "state.json"
        listed = json.loads(state.read_bytes()) | {"_data_files": [{"filename": name} for name in names]}
        state.write_text(json.dumps(listed, indent=2, sort_keys=True), encoding="utf-8")
