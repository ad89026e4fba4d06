"""What a client may ask, checked before anything is computed. Refusals are sentences that repeat no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException, Request

from promptmint.serving.schemas import Question
from promptmint.serving.served import Row, Standing
from promptmint.serving.service import Service, canonical

NOT_READ = (
    "A text leaves the base's tokenizer nothing to read, or its prompt has been replaced by one that is asked in "
    "another way: GET /v1/prompts says how."
)
UNKNOWN = "No such prompt is served here; GET /v1/prompts lists those you may ask."


def service_of(request: Request) -> Service:
    """What answers a request."""
    service: Service = request.app.state.service
    return service


def note(request: Request, **more: Any) -> None:
    """Add to what the logs will say of this request."""
    request.scope["state"]["told"].update(more)


def may_ask(request: Request, name: str) -> bool:
    """Whether the client of a request may ask the prompt of this name, in any version."""
    client = request.scope["state"].get("client")
    return client is None or client.may_ask(name)


def row_of(question: Question) -> Row:
    """A question as the engine is asked it."""
    text = question.text if question.pair is None else (question.text, question.pair)
    return Row(canonical(question.prompt), text, question.untouched)


def admit(request: Request, rows: Sequence[Row], labels: bool = True) -> None:
    """Let the client ask these prompts these texts, for their labels or to write on; note what it asked.

    Raises `HTTPException`: 403 where it may not, 404 what is not served, 422 a question that its prompt cannot answer.
    """
    service = service_of(request)
    note(request, prompts=Counter(row.reference for row in rows))
    if service.options.log_texts:
        note(request, texts=[row.text for row in rows])
    standings = service.served.standings()
    for reference in dict.fromkeys(row.reference for row in rows):
        if not may_ask(request, reference.partition("@")[0]):
            raise HTTPException(403, f"This token may not ask {reference!r}.")
        if reference not in standings:
            raise HTTPException(404, UNKNOWN)
    for place, row in enumerate(rows):
        if wrong := _wrong(standings[row.reference], row, labels):
            raise HTTPException(422, f"rows.{place}: {wrong}" if len(rows) > 1 else wrong)


def admit_about(request: Request, name: str) -> None:
    """Let the client ask about a prompt of which some version is served. Raises `HTTPException`: 403 or 404."""
    if not may_ask(request, name):
        raise HTTPException(403, f"This token may not ask {name!r}.")
    if all(standing.name != name for standing in service_of(request).served.standings().values()):
        raise HTTPException(404, UNKNOWN)


def _wrong(standing: Standing, row: Row, labels: bool) -> str | None:
    """Why a prompt cannot answer a question; None where it can."""
    if standing.pair and isinstance(row.text, str):
        return f"{row.reference} answers pairs of texts: send the second one as 'pair'."
    if not standing.pair and not isinstance(row.text, str):
        return f"{row.reference} answers single texts: leave 'pair' out."
    if labels and standing.writes:
        return f"{row.reference} answers with a text and has no labels: POST it to /v1/generate."
    if labels and row.untouched and not standing.untouched:
        return (
            f"The untouched base has no label to give in the place of {row.reference}, whose head was trained with it: "
            "only label words that the base itself can say are scored without a prompt. Leave 'untouched' out."
        )
    return None
