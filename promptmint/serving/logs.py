"""Structured logs: one JSON object a line on standard error; texts are in them only where the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("promptmint.serving")


class Lines(logging.Formatter):
    """A record as JSON: `at`, `level`, `event`, and what `tell` was given."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "told", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def tell(event: str, level: int = logging.INFO, failure: BaseException | None = None, **told: Any) -> None:
    """Write a line about an event."""
    LOGGER.log(level, event, exc_info=failure, extra={"told": told})


def configure() -> None:
    """Send what is told, and the warnings of uvicorn and others, to standard error in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    LOGGER.setLevel(logging.INFO)
