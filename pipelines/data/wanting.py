"""Libraries that only a check that is asked for needs."""

from __future__ import annotations

import importlib
from typing import Any

from pipelines.errors import DataError


def wanted(module: str, key: str) -> Any:
    """The module that `[data.checks]` KEY needs.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"data.checks.{key} needs the library {module.partition('.')[0]}, which is not installed: "
            "pip install 'promptmint[checks]', or leave that check out."
        ) from error
