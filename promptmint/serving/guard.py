"""What every request passes before it is looked at: who asks, whether the server is leaving, how large the body is.

And what is written down of it afterwards: a line in the logs and two figures, without texts.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from promptmint.serving.limits import BODY_BYTES, DISCARDED_BYTES
from promptmint.serving.logs import tell
from promptmint.serving.service import Service

OPEN = ("/", "/health", "/ready", "/openapi.json")  # without a token
WORK = "/v1/"  # refused while the server drains
WRITING = "/v1/generate"


class Guard:
    """ASGI middleware around the application."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or let the application answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, start, status = uuid.uuid4().hex, time.perf_counter(), 500
        told: dict[str, Any] = scope.setdefault("state", {}).setdefault("told", {})

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        writes = scope["path"] == WRITING
        self.service.in_flight += 1
        self.service.streams += writes
        try:
            await self._answer(scope, receive, sending)
        finally:
            self.service.in_flight -= 1
            self.service.streams -= writes
            seconds, path = time.perf_counter() - start, _known_path(scope)
            self.service.metrics.requests.labels(path, status).inc()
            self.service.metrics.seconds.labels(path).observe(seconds)
            tell(
                "request", id=request_id, method=scope["method"], path=path, status=status,
                ms=round(1000 * seconds, 1), **told,
            )  # fmt: skip

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body = await _body(receive)  # read before any refusal: a sender that is cut off does not hear of it
        headers = dict(scope["headers"])
        if self.service.access is not None and scope["path"] not in OPEN:
            client = self.service.access.client(headers.get(b"authorization", b"").decode("latin-1"))
            if client is None:
                what = "A token is needed: send 'Authorization: Bearer TOKEN' with one that this server knows."
                await _refuse(send, 401, what, (b"www-authenticate", b"Bearer"))
                return
            scope["state"] |= {"client": client}
            scope["state"]["told"]["client"] = client.name
        if self.service.draining and scope["path"].startswith(WORK):
            await _refuse(send, 503, "This server is about to stop: ask another one.", (b"retry-after", b"1"))
            return
        if body is None:
            await _refuse(send, 413, f"A body may have {BODY_BYTES:,} bytes, and this one has more: send fewer rows.")
            return
        await self.app(scope, _replay(body, receive), send)


async def _body(receive: Any) -> bytes | None:
    """The whole body; None where it is too large, after most senders have sent it and listen for the answer."""
    parts, size, more = [], 0, True
    while more and size <= DISCARDED_BYTES:
        message = await receive()
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= BODY_BYTES:
            parts.append(part)
    return b"".join(parts) if size <= BODY_BYTES else None


def _replay(body: bytes, receive: Any) -> Any:
    """Gives the body once more, then whatever comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Any:
        return messages.pop() if messages else await receive()

    return receiving


async def _refuse(send: Any, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer with a problem, and close the connection: its sender is not to go on."""
    body = json.dumps({"detail": detail}).encode()
    fixed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    all_headers = [*fixed, (b"connection", b"close"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


def _known_path(scope: Any) -> str:
    """The route's path; a client's inventions count as one."""
    path: str = getattr(scope.get("route"), "path", "")
    return path or (scope["path"] if scope["path"] in OPEN else "other")
