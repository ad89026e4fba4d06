"""Soft prompts you can trust: tuned, proven, registered, and pulled with the exact base they belong to.

import promptmint
prompt = promptmint.load("ticket-routing@champion")
prompt.predict(["My card was charged twice"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptmint.client import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load`, imported when it is first asked for: importing promptmint itself costs nothing."""
    if name == "load":
        from promptmint.client import load

        return load
    raise AttributeError(f"module 'promptmint' has no attribute {name!r}; it has 'load' and '__version__'.")
