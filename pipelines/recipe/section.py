"""What every table of a recipe is, and the kinds of value that several of them have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$", max_length=64)]


class Section(BaseModel):
    """A table of a recipe: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def changed_keys(self, keys: Iterable[str]) -> list[str]:
        """Those of these keys that say something else than their default."""
        return [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
