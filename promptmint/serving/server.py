"""A service behind a port: listening, and leaving without dropping an answer."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from pipelines.errors import PromptmintError
from promptmint.serving import logs
from promptmint.serving.access import check_address, read_access
from promptmint.serving.app import create_app
from promptmint.serving.logs import tell
from promptmint.serving.service import Options, Service, open_service

KEEP_ALIVE_S = 30
TICK_S = 0.05


def serve(references: Sequence[str], host: str, port: int, options: Options) -> None:
    """Serve prompts until SIGTERM or Ctrl-C; return when all that was accepted is answered.

    Raises:
        PromptmintError: the prompts cannot be loaded, the address cannot be used, or there are no tokens for it.
    """
    logs.configure()
    access = read_access(options.tokens) if options.tokens else None
    check_address(host, access)
    listener = bound(host, port)
    with listener:
        service = open_service(references, options, access)
        with _stops() as stops:
            listening = listen(service, listener)
            tell("listening", url=listening.url, prompts=sorted(service.served.standings()))
            stops.wait()
            listening.drain(options.drain_s, stops)


class Stops:
    """The signals that asked this process to stop."""

    def __init__(self) -> None:
        self.count = 0
        self._first = threading.Event()

    def add(self, *_: object) -> None:
        """One more."""
        self.count += 1
        self._first.set()

    def wait(self) -> None:
        """Return when there is one."""
        self._first.wait()


@contextmanager
def _stops() -> Iterator[Stops]:
    """The signals that ask this process to stop, collected instead of ending it."""
    stops = Stops()
    before = {number: signal.signal(number, stops.add) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Listening:
    """A server that answers in a thread of its own."""

    service: Service
    url: str
    server: uvicorn.Server
    thread: threading.Thread

    def drain(self, seconds: float, stops: Stops | None = None) -> None:
        """Refuse what is new, answer what was accepted, and end; after so many seconds, or two stops, end all the same.

        Until then `/ready` and new requests get 503, so that a load balancer hears of it.
        """
        self.service.draining = True
        tell("draining", in_flight=self.service.in_flight)
        deadline = time.monotonic() + seconds
        while self.service.in_flight and time.monotonic() < deadline and (stops is None or stops.count < 2):
            time.sleep(TICK_S)
        if left := self.service.in_flight:
            tell("leaving early", logging.WARNING, unanswered=left)
            self.server.force_exit = True
        self.server.should_exit = True
        self.thread.join()
        self.service.close()
        tell("stopped")


def listen(service: Service, listener: socket.socket) -> Listening:
    """A server that accepts connections on a bound socket and follows the registry."""
    config = uvicorn.Config(
        create_app(service), lifespan="off", log_config=None, access_log=False, server_header=False, loop="asyncio",
        timeout_keep_alive=KEEP_ALIVE_S,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(TICK_S)
    service.follower.start()
    host, port = listener.getsockname()[:2]
    return Listening(service, f"http://{f'[{host}]' if ':' in host else host}:{port}", server, thread)


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address and does not listen yet. Raises `PromptmintError` where it cannot be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        raise PromptmintError(
            f"Cannot listen on port {port} of {host!r}: {error}. Stop what listens there, or choose another --port."
        ) from None
