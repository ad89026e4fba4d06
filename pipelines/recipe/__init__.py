"""A recipe: one tuned problem in one TOML file, read into a frozen value that knows its digest.

Nothing that changes a result has a hidden default: what a recipe leaves out is filled in here, in sight, and goes into
the digest and into the artifact like everything else. Where something runs (workers, devices) is not a recipe's matter:
see `training/compute.py`.
"""

from .drift import Drift
from .gates import NOT_ASKED, Budgets, Gates, NonInferiority, Robustness, Superiority
from .load import load_recipe
from .methods import (
    BASELINES,
    INSERTED,
    OWN_KEYS,
    Adapters,
    Baselines,
    Full,
    HeadOnly,
    Lora,
    Method,
    Optimisation,
    Prompt,
    ZeroShot,
)
from .problem import BasePin, Checks, Data, Head, Template
from .recipe import Promotion, Recipe
from .section import Section
from .sweep import Grid, Sweep, changed

__all__ = [
    "BASELINES",
    "INSERTED",
    "NOT_ASKED",
    "OWN_KEYS",
    "Adapters",
    "BasePin",
    "Baselines",
    "Budgets",
    "Checks",
    "Data",
    "Drift",
    "Full",
    "Gates",
    "Grid",
    "Head",
    "HeadOnly",
    "Lora",
    "Method",
    "NonInferiority",
    "Optimisation",
    "Promotion",
    "Prompt",
    "Recipe",
    "Robustness",
    "Section",
    "Superiority",
    "Sweep",
    "Template",
    "ZeroShot",
    "changed",
    "load_recipe",
]
