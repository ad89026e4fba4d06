"""Using a prompt: pulled, exported, asked, verified."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipelines.errors import DataError
from promptmint.commands.answers import AsJson, Reference, report

if TYPE_CHECKING:
    from pipelines.inference.predictor import Predictor


def pull(
    reference: Reference,
    to: Annotated[Path, typer.Option(help="The folder to put it in")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Copy a prompt's artifact, some kilobytes, verified against its digest; its base stays where it is.

    Where registry or store cannot be reached: the last known good, and a warning. A base is fetched by predict, verify,
    export and serve: once per machine, checked, and gone on with where it was broken off.
    """
    from promptmint import client

    folder = client.pull(reference, to)
    size = sum(path.stat().st_size for path in folder.iterdir())
    report({"folder": str(folder), "bytes": size}, f"{folder}: {size:,} bytes", as_json)


def export(
    reference: Reference,
    to: Annotated[Path, typer.Option(help="The folder to put it in")],
    layout: Annotated[Literal["peft", "prompt-embeds"], typer.Option(help="What the other tool reads")],
    as_json: AsJson = False,
) -> None:
    """Write a prompt for PEFT, or for engines that take input embeddings; proven there before it is published."""
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from promptmint import client

    disable_progress_bar()  # type: ignore[no-untyped-call]
    set_verbosity_error()  # type: ignore[no-untyped-call]  # of weights that plain transformers has no use for
    folder, difference = client.export(reference, layout, to)
    found = {"folder": str(folder), "layout": layout, "largest_difference": difference}
    report(found, f"{folder}: answers there as it was proven to, within {difference:.1e}", as_json)


def predict(
    reference: Reference,
    texts: Annotated[
        list[str], typer.Argument(help="What to answer; - reads one text (or a pair, TEXT tab TEXT) per line")
    ],
    pairs: Annotated[
        list[str] | None, typer.Option("--pair", help="For a prompt of pairs: the second text of each, in their order")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer texts, or pairs of texts, with a prompt on its base: labels, or texts where it was tuned to write."""
    predictor = _load(reference)
    if texts == ["-"]:
        texts = sys.stdin.read().splitlines()
        if predictor.of_pairs and pairs is None:
            texts, pairs = _split(texts)
    if "" in (text.strip() for text in texts):
        raise DataError("There is nothing to answer in an empty text. Leave it out.")
    asked: list[dict[str, Any]] = [
        {"text": text, **({} if pairs is None else {"pair": pairs[place]})} for place, text in enumerate(texts)
    ]
    if predictor.writes:
        written = predictor.generate(texts, pairs)
        answers = [{**each, "answer": text} for each, text in zip(asked, written, strict=True)]
        report({"answers": answers}, "\n".join(written), as_json)
        return
    said = predictor.predict(texts, pairs)
    answers = [
        {**each, "label": answer.label, "probability": round(answer.probability, 4)}
        for each, answer in zip(asked, said, strict=True)
    ]
    lines = [
        f"{answer.label}  {100 * answer.probability:.1f} %  {text}" for text, answer in zip(texts, said, strict=True)
    ]
    report({"answers": answers}, "\n".join(lines), as_json)


def _split(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """First and second texts of lines that have a tab between them. Raises `DataError`."""
    for number, line in enumerate(lines, 1):
        if line.count("\t") != 1:
            raise DataError(
                f"Line {number} is {line!r}, with {line.count(chr(9))} tabs: this prompt was tuned on two texts. Write "
                "both of them on each line, with one tab between them."
            )
    parts = [line.split("\t") for line in lines]
    return [first for first, _ in parts], [second for _, second in parts]


def verify(reference: Reference, as_json: AsJson = False) -> None:
    """Check a prompt's digest, its base's digest, and that it still answers as it was proven to."""
    predictor = _load(reference)
    prompt, difference = predictor.prompt, predictor.proven_within
    found = {
        "reference": reference,
        "prompt_digest": prompt.digest,
        "base_digest": prompt.card["base"]["digest"],
        "largest_difference": difference,
    }
    report(found, f"{reference} is what was minted: prompt {prompt.digest}, proof within {difference:.1e}", as_json)


def _load(reference: str) -> Predictor:
    """The prompt, loaded without the bars that transformers draws for it."""
    from transformers.utils.logging import disable_progress_bar

    from promptmint.client import load

    disable_progress_bar()  # type: ignore[no-untyped-call]
    return load(reference)
