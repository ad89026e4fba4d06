"""A page made of a template of this folder: everything is escaped, everything stands in the one file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from pipelines.evaluation.pages import words
from pipelines.evaluation.report import p_value

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """The page that a template makes of these values, its style inside it. A value that is missing is an error."""
    style = Markup((HERE / "style.css").read_text(encoding="utf-8"))
    return _environment().get_template(template).render(style=style, **values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    spellings = ("percent", "count", "size", "duration", "moment", "method", "sentence")
    environment.filters |= {name: getattr(words, name) for name in spellings} | {"p_value": p_value}
    return environment
