"""The whole recipe, and what must fit between its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import PrivateAttr, SerializerFunctionWrapHandler, model_serializer, model_validator

from ..digests import digest_json
from ..errors import listed
from .drift import Drift
from .gates import Gates
from .generation import misfit_of_generation
from .methods import INSERTED, WARM, Baselines, Optimisation, Prompt
from .problem import BasePin, Data, Head, Template
from .section import Name, Section, Seed
from .sweep import Sweep, changed, in_one_line


class Promotion(Section):
    """`[promotion]`: what happens to a prompt that passed."""

    policy: Literal["automatic", "manual", "family"] = "manual"
    family: Name | None = None  # of recipes whose promotions are decided together
    control: Literal["fdr", "fwer"] = "fdr"  # of what: the share of false promotions, or the chance of a single one

    @model_validator(mode="after")
    def _family_has_a_name(self) -> Promotion:
        if (self.policy == "family") != (self.family is not None):
            raise ValueError(f"promotion.family belongs to policy = 'family', which needs it: got {self.family!r}")
        return self

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {"family", "control"} if self.family is None else set()
        return {key: value for key, value in dump(self).items() if key not in absent}


class Recipe(Section):
    """Everything that decides what is minted and how it is judged."""

    name: Name
    description: str = ""
    seed: Seed = 0
    base: BasePin
    data: Data
    template: Template = Template()
    head: Head = Head()
    training: Optimisation = Optimisation()
    prompt: Prompt
    baselines: Baselines = Baselines()
    gates: Gates = Gates()
    promotion: Promotion = Promotion()
    sweep: Sweep | None = None
    drift: Drift | None = None

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder that relative paths in this recipe start from."""
        return self._folder

    @property
    def digest(self) -> str:
        """What this recipe asks for, whatever it is described as and wherever it lies."""
        return digest_json(self.model_dump(mode="json", exclude={"description"}))

    @property
    def starts_warm(self) -> bool:
        """Whether the prompt begins at the champion's numbers where they fit. A sweep compares, so it has to ask."""
        able = self.prompt.method in WARM and self.prompt.half == "encoder" and self.sweep is None
        return able if self.prompt.warm_start is None else self.prompt.warm_start

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if (self.data.pair is not None) != self.template.of_pairs:
            raise ValueError(
                "data.pair and {pair} in template.text belong together, as in text = '{text}{sep}{pair}': got "
                f"data.pair = {self.data.pair!r} and template.text = {self.template.text!r}"
            )
        if problem := misfit_of_generation(self):
            raise ValueError(problem)
        words = self.head.words
        if (self.head.kind == "verbaliser") != (words is not None):
            raise ValueError("head.words belongs to head.kind = 'verbaliser', and a verbaliser needs it")
        if words is not None and len(words) != len(self.data.labels):
            raise ValueError(
                f"head.words must name one word per label: {len(words)} for {len(self.data.labels)} labels"
            )
        if self.head.kind == "linear" and self.baselines.zero_shot is not None:
            raise ValueError(
                "baselines.zero_shot needs head.kind = 'verbaliser' or 'generation': an untrained linear head knows "
                "nothing"
            )
        if self.head.kind != "linear" and self.baselines.head_only is not None:
            raise ValueError(f"baselines.head_only needs head.kind = 'linear': {self.head.kind} has nothing to train")
        if self.gates.per_slice_accuracy is not None and not self.data.slices:
            raise ValueError("gates.per_slice_accuracy needs data.slices: the columns whose values are slices")
        if self.prompt.method == "dept" and self.prompt.positions > self.template.max_tokens:
            raise ValueError(
                f"prompt.positions = {self.prompt.positions} is more than template.max_tokens = "
                f"{self.template.max_tokens}: the offsets after it would never be trained. Lower it to that"
            )
        if self.template.marked and self.prompt.method not in INSERTED:
            raise ValueError(
                f"template.text = {self.template.text!r} puts the prompt at {{prompt}}, which prompt.method = "
                f"{self.prompt.method!r} cannot do; {listed(INSERTED)} can. Take {{prompt}} out, or choose one of them"
            )
        if self.prompt.half == "decoder" and (self.template.marked or words is None):
            raise ValueError(
                "prompt.half = 'decoder' needs head.kind = 'verbaliser', and a template without {prompt}: the prompt "
                "stands before what the decoder says"
            )
        if self.gates.budgets.added_latency_ms and self.gates.budgets.latency_tokens > self.template.max_tokens:
            raise ValueError(
                f"gates.budgets.latency_tokens = {self.gates.budgets.latency_tokens} is more than template.max_tokens "
                f"= {self.template.max_tokens}: no text is ever that long. Lower it"
            )
        if self.promotion.family and not (self.gates.comparisons or self.gates.robust):
            raise ValueError(
                "promotion.family needs a gate that claims something: gates.non_inferior, superior or robust"
            )
        compared = {name for name, _ in self.baselines.named()} | {"champion"}
        for opponent in self.gates.opponents:
            if opponent not in compared:
                raise ValueError(f"a gate compares with {opponent!r}, but there is no [baselines.{opponent}]")
        return self

    @model_validator(mode="after")
    def _sweep_is_possible(self) -> Recipe:
        if self.sweep and self.data.split is None and not self.data.validation_fraction:
            raise ValueError("a sweep chooses by the validation split: set data.validation_fraction above 0")
        for method, change in self.sweep.combinations() if self.sweep else ():
            settled = changed(self, method, change).model_copy(update={"sweep": None})
            with in_one_line(f"sweep.{method}: {change!r} is not possible"):
                Recipe.model_validate(settled.model_dump())
        return self

    @model_serializer(mode="wrap")
    def _what_is_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that were written before there were sweeps and drift keep their digests.
        return {key: value for key, value in dump(self).items() if key not in ("sweep", "drift") or value is not None}
