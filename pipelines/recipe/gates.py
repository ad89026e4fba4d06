"""The gates: what must hold on the test split before a prompt may be promoted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .section import Section


class NonInferiority(Section):
    """`[[gates.non_inferior]]`: the prompt may trail `to` by less than `margin` points of accuracy or of the metric."""

    to: Literal["lora", "adapters", "full", "champion"]
    margin: float = Field(gt=0, lt=100)  # percentage points


class Superiority(Section):
    """`[[gates.superior]]`: the prompt must be ahead of `to` by more than `margin` points of accuracy or the metric."""

    to: Literal["lora", "adapters", "full", "head_only", "zero_shot", "champion"]
    margin: float = Field(0.0, ge=0, lt=100)  # percentage points


RATED = ("typos", "truncation")  # disturbances of which a text can have more or less


class Robustness(Section):
    """`[[gates.robust]]`: on disturbed test texts the prompt may trail by less than `margin` points of accuracy.

    It is held against its own answers to the texts as they are, or against another method on the same disturbed texts.
    """

    to: Literal["typos", "lower", "upper", "title", "punctuation", "truncation"]
    rate: float | None = Field(None, gt=0, lt=1)  # typos: of the letters; truncation: of the words, the last ones
    margin: float = Field(gt=0, lt=100)  # percentage points
    beside: Literal["lora", "adapters", "full", "head_only", "zero_shot"] | None = (
        None  # None: itself on the texts as they are
    )

    @model_validator(mode="after")
    def _rate_where_there_is_one(self) -> Robustness:
        if (self.rate is not None) != (self.to in RATED):
            raise ValueError(f"rate belongs to {' and '.join(RATED)}, which need it: got {self.to!r} and {self.rate!r}")
        return self


class Budgets(Section):
    """`[gates.budgets]`: what a prompt may cost."""

    artifact_bytes: int | None = Field(None, ge=1)
    trainable_params: int | None = Field(None, ge=1)
    added_latency_ms: float | None = Field(None, gt=0)  # that the prompt adds to the answer to one text, measured
    latency_tokens: int = Field(32, ge=1)  # of that text

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {"added_latency_ms", "latency_tokens"} if self.added_latency_ms is None else set()
        return {key: value for key, value in dump(self).items() if key not in absent}


# What changes nothing at its default, and is then neither in the digest nor in the artifact.
NOT_ASKED = (
    "metric", "superior", "robust", "per_label_accuracy", "per_slice_accuracy", "max_ece", "min_power", "disagreement"
)  # fmt: skip
OF_CLASSES = ("robust", "per_label_accuracy", "per_slice_accuracy", "max_ece", "min_power", "disagreement")
Metric = Literal["bleu", "rouge_l", "token_f1", "exact_match"]  # of written texts: see evaluation/texts.py


class Gates(Section):
    """`[gates]`: what must hold on the test split before a prompt may be promoted.

    A gate that is not asked for is not in the digest: recipes that were written before it keep theirs.
    """

    confidence: float = Field(0.95, gt=0.5, lt=1)  # one-sided, of every gate that rests on the test examples
    resamples: int = Field(10_000, ge=1000)
    metric: Metric | None = None  # generation: what margins are points of; None: accuracy, of classes
    non_inferior: tuple[NonInferiority, ...] = ()
    superior: tuple[Superiority, ...] = ()
    robust: tuple[Robustness, ...] = ()
    per_label_accuracy: float | None = Field(None, gt=0, lt=1)  # that no label may be proven to be below
    per_slice_accuracy: float | None = Field(None, gt=0, lt=1)  # the same of every value of data.slices
    max_ece: float | None = Field(None, gt=0, lt=1)  # expected calibration error that may not be proven to be exceeded
    min_power: float = Field(0.0, ge=0, lt=1)  # of every non-inferiority gate, foreseen; below it nothing is trained
    disagreement: float = Field(0.1, gt=0, le=1)  # share of examples that one of two answers rightly, as foreseen
    budgets: Budgets = Budgets()

    @property
    def comparisons(self) -> tuple[NonInferiority | Superiority, ...]:
        """The gates that hold the prompt against something else."""
        return (*self.non_inferior, *self.superior)

    @property
    def opponents(self) -> tuple[str, ...]:
        """Whom these gates hold the prompt against; one may come more than once."""
        return tuple(each.to for each in self.comparisons) + tuple(each.beside for each in self.robust if each.beside)

    @model_validator(mode="after")
    def _disturbances_differ(self) -> Gates:
        asked = [(each.to, each.rate, each.beside) for each in self.robust]
        if len(set(asked)) != len(asked):
            raise ValueError("two tables of robust ask the same: they must differ in to, rate or beside")
        return self

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {key for key in NOT_ASKED if getattr(self, key) == type(self).model_fields[key].default}
        if self.min_power:
            absent -= {"disagreement"}  # it decides now, so it is said even at its default
        return {key: value for key, value in dump(self).items() if key not in absent}
