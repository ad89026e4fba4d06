"""The routes. What they take and give is in schemas.py; what every request passes first is in guard.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path as File
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException as AnyHTTPException

import promptmint
from mlflow_config import names
from mlflow_config.registry import Version
from pipelines.errors import BaseModelError, DataError
from promptmint.serving import schemas
from promptmint.serving.admission import NOT_READ, UNKNOWN, admit, admit_about, may_ask, note, row_of, service_of
from promptmint.serving.batching import QueueFull
from promptmint.serving.guard import Guard
from promptmint.serving.limits import STREAMS
from promptmint.serving.on_demand import NoSuchVersion, Refused, Unreachable
from promptmint.serving.schemas import Opening, Problem, Question, Questions
from promptmint.serving.served import Answered, NotServed, Standing
from promptmint.serving.service import Service

PAGE = File(__file__).with_name("page.html")
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"

TOKEN = Depends(HTTPBearer(auto_error=False))  # described here; the guard is who checks it
WITHOUT: dict[int | str, dict[str, Any]] = {401: {"model": Problem, "description": "No token, or none that is known"}}
REFUSED: dict[int | str, dict[str, Any]] = {
    **WITHOUT,
    400: {"model": Problem, "description": "The body is not JSON in UTF-8"},
    403: {"model": Problem, "description": "This client may not ask this prompt"},
    404: {"model": Problem, "description": "No such prompt is served"},
    413: {"model": Problem, "description": "The body is too large"},
    422: {"model": Problem, "description": "The JSON is not what it should be"},
    429: {"model": Problem, "description": "Too many rows wait; Retry-After says when to come back"},
    503: {"model": Problem, "description": "The server is about to stop"},
}
OF_VERSIONS: dict[int | str, dict[str, Any]] = {
    **{status: REFUSED[status] for status in (401, 403, 404, 422)},
    503: {"model": Problem, "description": "The server is about to stop, or registry or store cannot be asked"},
}
ON_DEMAND = {**OF_VERSIONS, 409: {"model": Problem, "description": "This version cannot answer here"}}

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=200, examples=["ticket-routing"])]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, examples=[2])]

NOT_AN_OBJECT = (
    "The body must be a JSON object, sent with 'Content-Type: application/json': GET /openapi.json has examples."
)
EVENTS = 'data: {"text": " refund"}\n\nevent: end\ndata: {"prompt": "replies@champion", "version": 2}\n\n'


def create_app(service: Service) -> FastAPI:
    """The ASGI application of a service."""
    app = FastAPI(
        title="promptmint", version=promptmint.__version__, docs_url=None, redoc_url=None,
        description="Soft prompts on one frozen base; every answer names the version that gave it.",
    )  # fmt: skip
    app.state.service = service
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(AnyHTTPException)(_problem)
    app.exception_handler(Exception)(_failed)
    token = [TOKEN] if service.access else []
    listed = {status: REFUSED[status] for status in (*WITHOUT, 503)}
    app.add_api_route("/v1/predict", predict, methods=["POST"], responses=REFUSED, dependencies=token)
    app.add_api_route("/v1/batch", batch, methods=["POST"], responses=REFUSED, dependencies=token)
    if service.served.writes:
        app.add_api_route(
            "/v1/generate", generate, methods=["POST"], response_class=StreamingResponse, dependencies=token,
            responses={**REFUSED, 200: {"content": {"text/event-stream": {"example": EVENTS}}}},
        )  # fmt: skip
    app.add_api_route("/v1/prompts", prompts, responses=listed, dependencies=token)
    path = "/v1/prompts/{name}/versions"
    app.add_api_route(path, versions, responses=OF_VERSIONS, dependencies=token)
    app.add_api_route(f"{path}/{{version}}", serve, methods=["PUT"], responses=ON_DEMAND, dependencies=token)
    app.add_api_route("/health", health)
    app.add_api_route("/ready", ready, responses={503: {"model": schemas.Readiness, "description": "It is leaving"}})
    app.add_api_route("/metrics", metrics, response_class=Response, responses=WITHOUT, dependencies=token)
    app.add_api_route("/", page, response_class=HTMLResponse, include_in_schema=False)
    app.add_middleware(Guard, service=service)
    return app


async def predict(question: Question, request: Request) -> schemas.Reply:
    """Answer one text."""
    return (await _answered(request, [question]))[0]


async def batch(questions: Questions, request: Request) -> schemas.Replies:
    """Answer several texts together, of one prompt or of many; rows of one prompt are answered by one version."""
    return schemas.Replies(answers=await _answered(request, questions.rows))


async def generate(opening: Opening, request: Request) -> StreamingResponse:
    """Write on after a text, as server-sent events: `data: {"text": ...}` for each piece, then `event: end`."""
    service, row = service_of(request), row_of(opening)
    admit(request, [row], labels=False)
    if service.streams > STREAMS:
        raise HTTPException(429, f"{STREAMS} texts are being written on, and no more may be.", {"Retry-After": "1"})
    try:
        standing, pieces = await run_in_threadpool(service.served.generate, row, opening.max_new_tokens)
    except NotServed:
        raise HTTPException(404, UNKNOWN) from None
    except DataError:
        raise HTTPException(422, NOT_READ) from None
    except BaseModelError as error:
        raise HTTPException(422, str(error)) from None
    note(request, versions={row.reference: standing.version})
    end = {
        "prompt": row.reference, "version": standing.version, "prompt_digest": standing.digest,
        "untouched": row.untouched,
    }  # fmt: skip
    return StreamingResponse(_events(pieces, end), media_type="text/event-stream")


async def _events(pieces: Iterator[str], end: dict[str, Any]) -> AsyncIterator[str]:
    """The pieces as server-sent events, and at last who wrote them."""
    async for piece in iterate_in_threadpool(pieces):
        yield f"data: {json.dumps({'text': piece})}\n\n"
    yield f"event: end\ndata: {json.dumps(end)}\n\n"


async def prompts(request: Request) -> schemas.Prompts:
    """Which prompts the client may ask, and the version each stands for now."""
    served = service_of(request).served
    allowed = [standing for standing in served.standings().values() if may_ask(request, standing.name)]
    described = [_described(standing) for standing in sorted(allowed, key=lambda s: s.reference)]
    return schemas.Prompts(prompts=described, writes=served.writes)


async def versions(name: Name, request: Request) -> schemas.Versions:
    """Every version of a served prompt that the registry has, the newest first."""
    service = service_of(request)
    admit_about(request, name)
    try:
        async with service.on_demand.turn:
            found = await run_in_threadpool(service.on_demand.versions, name)
    except Unreachable as error:
        raise HTTPException(503, str(error), {"Retry-After": "10"}) from None
    standings = service.served.standings()
    return schemas.Versions(versions=[_registered(name, each, standings) for each in found])


async def serve(name: Name, version: Number, request: Request) -> schemas.Described:
    """Have a version served beside the others, as NAME@VERSION, until others that are asked for take its place."""
    service = service_of(request)
    admit_about(request, name)
    try:
        async with service.on_demand.turn:
            return _described(await run_in_threadpool(service.on_demand.serve, name, version))
    except NoSuchVersion as error:
        raise HTTPException(404, str(error)) from None
    except Refused as error:
        raise HTTPException(409, str(error)) from None
    except Unreachable as error:
        raise HTTPException(503, str(error), {"Retry-After": "10"}) from None


async def health() -> schemas.Health:
    """Whether the process lives."""
    return schemas.Health()


async def ready(request: Request, response: Response) -> schemas.Readiness:
    """Whether to send requests here; 503 while the server drains."""
    service = service_of(request)
    response.status_code = 503 if service.draining else 200
    stale = sorted(each.reference for each in service.served.standings().values() if each.stale)
    return schemas.Readiness(status="draining" if service.draining else "ready", stale=stale)


async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def page() -> HTMLResponse:
    """A page to try the prompts on, by hand."""
    return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": PAGE_POLICY})


async def _answered(request: Request, questions: list[Question]) -> list[schemas.Reply]:
    """A reply per question, all of them from one batch."""
    service = service_of(request)
    rows = [row_of(question) for question in questions]
    admit(request, rows)
    try:
        answers = await asyncio.wrap_future(service.batcher.submit(rows))
    except QueueFull as full:
        raise HTTPException(429, str(full), {"Retry-After": str(full.retry_after_s)}) from None
    except NotServed:  # no longer, after it waited
        raise HTTPException(404, UNKNOWN) from None
    except (DataError, BaseModelError):  # its prompt was replaced while it waited, or there is nothing to read
        raise HTTPException(422, NOT_READ) from None
    note(request, versions={each.standing.reference: each.standing.version for each in answers})
    for each in answers:
        version = "untouched" if each.untouched else each.standing.version
        service.metrics.rows.labels(each.standing.reference, version).inc()
    return [_reply(each) for each in answers]


def _reply(answered: Answered) -> schemas.Reply:
    standing, answer = answered.standing, answered.answer
    return schemas.Reply(
        prompt=standing.reference, version=standing.version, prompt_digest=standing.digest,
        untouched=answered.untouched, label=answer.label, probability=answer.probability,
        probabilities=answer.probabilities,
    )  # fmt: skip


def _described(standing: Standing) -> schemas.Described:
    return schemas.Described(
        prompt=standing.reference, version=standing.version, prompt_digest=standing.digest,
        base_digest=standing.base_digest, labels=list(standing.labels), pair=standing.pair,
        untouched=standing.untouched, writes=standing.writes, proven_within=standing.proven_within,
        since=standing.since, stale=standing.stale,
    )  # fmt: skip


def _registered(name: str, version: Version, standings: Mapping[str, Standing]) -> schemas.Registered:
    reference, tags = f"{name}@{version.number}", version.tags
    return schemas.Registered(
        prompt=reference, version=version.number, prompt_digest=tags.get(names.TAG_PROMPT),
        base_digest=tags.get(names.TAG_BASE), verdict=tags.get(names.TAG_VERDICT), served=reference in standings,
        registered=datetime.fromtimestamp(version.registered_ms / 1000, UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


async def _invalid(request: Request, error: Any) -> JSONResponse:
    """What is wrong with the body, by its place in it; the body itself is not repeated."""
    if any(tuple(each["loc"]) == ("body",) for each in error.errors()):
        return JSONResponse({"detail": NOT_AN_OBJECT}, 422)
    wrong = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
    return JSONResponse({"detail": "; ".join(wrong[:5])}, 422)


async def _problem(request: Request, error: Any) -> JSONResponse:
    """A refusal; those of the framework itself in a sentence that says what to do."""
    detail = str(error.detail)
    if error.status_code == 400:
        detail = "The body cannot be read as JSON in UTF-8: look at its encoding and its brackets."
    elif error.status_code == 405:
        detail = f"This path takes {error.headers['Allow']} and not {request.method}: see GET /openapi.json."
    elif detail == "Not Found":
        detail = "There is nothing at this path: GET /openapi.json says what there is."
        if request.url.path == "/v1/generate":
            detail = (
                "The base of this server is an encoder, which cannot write on after a text: ask for labels instead."
            )
    return JSONResponse({"detail": detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "The server failed at this; its logs say how."}, 500)
