"""The tiny bases in float64, so that what is equal in mathematics is equal to ten digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.inference.base import Base, load_base


@pytest.fixture(scope="session")
def doubled() -> Callable[[Path], Base]:
    """Loads the base in a folder in float64."""

    def doubled(folder: Path) -> Base:
        base = load_base(folder)
        base.whole.double()
        if base.lm_head is not None:
            base.lm_head.double()
        return base

    return doubled


@pytest.fixture
def base(doubled: Callable[[Path], Base], any_folder: Path) -> Base:
    """Each of the five bases in turn, in float64."""
    return doubled(any_folder)
