"""What goes in and out over HTTP; the OpenAPI description and its examples are made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from promptmint.serving.limits import NEW_TOKENS, REQUEST_ROWS, TEXT_CHARS

ASKED = {"prompt": "ticket-routing", "text": "My card was charged twice"}
PAIR = {"prompt": "answered", "text": "Who wrote it?", "pair": "It was written by a committee."}
GIVEN = {
    "prompt": "ticket-routing@champion",
    "version": 3,
    "prompt_digest": "f4270fd6bf5f7b7ff2b4b6b4d1a9f8f25d3a3e1b1c0e4f0a9d8c7b6a59483726",
    "untouched": False,
    "label": "billing",
    "probability": 0.974,
    "probabilities": {"billing": 0.974, "shipping": 0.026},
}


def _shown(*examples: dict[str, Any]) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": list(examples)})


class Question(BaseModel):
    """A text, and the prompt to answer it: NAME (its champion), NAME@champion, NAME@challenger or NAME@VERSION.

    A prompt of pairs takes a second text, `pair`. With `untouched` the base answers without the prompt: zero-shot, in
    the prompt's template and for its label words.
    """

    model_config = _shown(ASKED, PAIR, {**ASKED, "untouched": True})

    prompt: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*(@(champion|challenger|[1-9][0-9]*))?$", max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=TEXT_CHARS)]
    pair: Annotated[str | None, Field(min_length=1, max_length=TEXT_CHARS)] = None
    untouched: bool = False


class Questions(BaseModel):
    """Texts for any of the prompts, answered together."""

    model_config = _shown(
        {"rows": [ASKED, {**ASKED, "prompt": "ticket-routing@2"}, {**ASKED, "untouched": True}, PAIR]}
    )

    rows: Annotated[list[Question], Field(min_length=1, max_length=REQUEST_ROWS)]


class Opening(Question):
    """A text to write on after, and how far: 64 tokens, or as many as a prompt that was tuned to write says itself."""

    model_config = _shown({**ASKED, "max_new_tokens": 40})

    max_new_tokens: Annotated[int | None, Field(ge=1, le=NEW_TOKENS)] = None


class Reply(BaseModel):
    """A label with its probability, and exactly which prompt gave it; or in whose place the untouched base did."""

    model_config = _shown(GIVEN)

    prompt: str
    version: int
    prompt_digest: str
    untouched: bool
    label: str
    probability: float
    probabilities: dict[str, float]


class Replies(BaseModel):
    """An answer per row, in the order of the rows."""

    model_config = _shown({"answers": [GIVEN]})

    answers: list[Reply]


class Described(BaseModel):
    """One prompt that is served: what it stands for, since when, and why it may be out of date."""

    prompt: str
    version: int
    prompt_digest: str
    base_digest: str
    labels: list[str]
    pair: Annotated[bool, Field(description="it is asked with two texts, `text` and `pair`")]
    untouched: Annotated[bool, Field(description="the base alone can answer too: its labels are label words")]
    writes: Annotated[bool, Field(description="it answers with a text: POST /v1/generate; and has no labels")]
    proven_within: Annotated[float, Field(description="largest difference of a logit when its proof was replayed here")]
    since: Annotated[str, Field(description="ISO 8601, UTC")]
    stale: Annotated[str | None, Field(description="why registry or store could not be asked; null: it is up to date")]


class Prompts(BaseModel):
    """Everything that the asking client may ask, and whether the base can write on after a text."""

    prompts: list[Described]
    writes: bool


class Registered(BaseModel):
    """A version in the registry, served or not."""

    prompt: str
    version: int
    prompt_digest: str | None
    base_digest: str | None
    verdict: Annotated[str | None, Field(description="of its gates: passed, refused or inconclusive")]
    registered: Annotated[str, Field(description="ISO 8601, UTC")]
    served: Annotated[bool, Field(description="it can be asked now; otherwise PUT it first")]


class Versions(BaseModel):
    """Every version of a prompt, the newest first."""

    model_config = _shown(
        {
            "versions": [
                {
                    "prompt": "ticket-routing@2",
                    "version": 2,
                    "prompt_digest": GIVEN["prompt_digest"],
                    "base_digest": "9d4a1c0be7f2f1d6a6d4c8f6c0d3c1b2a5948372615f4e3d2c1b0a9f8e7d6c5b",
                    "verdict": "passed",
                    "registered": "2026-11-20T09:30:00+00:00",
                    "served": False,
                }
            ]
        }
    )

    versions: list[Registered]


class Health(BaseModel):
    """The process lives."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether to send requests here. `stale` names prompts that go on with their last known good version."""

    model_config = _shown({"status": "ready", "stale": []})

    status: Literal["ready", "draining"]
    stale: list[str]


class Problem(BaseModel):
    """Why there is no answer, in a sentence."""

    model_config = _shown({"detail": "No such prompt is served here; GET /v1/prompts lists those you may ask."})

    detail: str
