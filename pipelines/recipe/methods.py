"""The ways of tuning: the prompt that is minted, and the baselines it is measured against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ..errors import listed
from .section import Fraction, Rate, Section


class Optimisation(Section):
    """`[training]`: what the prompt and every baseline share."""

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(32, ge=1)  # rows over all workers
    warmup: Fraction = 0.06  # of the steps, linear from zero; then linear down to zero
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)  # of the gradient's norm
    precision: Literal["fp32", "bf16"] = "fp32"
    patience: int | None = Field(None, ge=1)  # epochs without a lower validation loss, then training ends early

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that were written before there was patience keep their digests.
        return {key: value for key, value in dump(self).items() if key != "patience" or value is not None}


class Method(Section):
    """What every way of tuning names: its rates, and its epochs where they differ from `[training]`."""

    rate: Rate
    head_rate: Rate | None = None  # of a linear head; None: the same rate
    epochs: int | None = Field(None, ge=1)

    def rate_of(self, parameter: str) -> float:
        """The learning rate of a parameter, by the name it is trained under."""
        own = self.head_rate if parameter.startswith("head.") else None
        return own or self.rate


OWN_KEYS: dict[str, tuple[str, ...]] = {  # what a prompt method has beside the keys of all of them
    "prompt-tuning": (),
    "p-tuning": ("encoder", "hidden"),
    "p-tuning-v2": (),
    "prefix-tuning": ("hidden",),
    "residual": ("bottleneck",),
    "superpos": ("basis",),
    "late": ("layer",),
    "lopa": ("hidden", "rank"),
    "dept": ("rank", "positions", "offset_rate"),
    "iapt": ("rank",),
}


WARM = ("prompt-tuning", "p-tuning-v2", "late", "lopa", "dept", "iapt")  # their artifacts hold all that they train
# Methods of vectors among the input embeddings, the same for every text: they may stand at {prompt} of a template.
INSERTED = ("prompt-tuning", "p-tuning", "residual", "superpos")


class Prompt(Method):
    """`[prompt]`: the soft prompt that is minted.

    A key of another method is refused, and is left out of the digest and of the artifact.
    """

    method: Literal[
        "prompt-tuning",
        "p-tuning",
        "p-tuning-v2",
        "prefix-tuning",
        "residual",
        "superpos",
        "late",
        "lopa",
        "dept",
        "iapt",
    ]
    tokens: int = Field(ge=1)
    init: Literal["random", "vocabulary", "labels", "text", "prior", "inputs"] = "random"
    init_text: str | None = None  # init = "text": repeated or cut to as many tokens as the prompt has
    init_scale: float = Field(
        0.02, gt=0
    )  # standard deviation of a random start; where an encoder or a generator reads it, 1.0
    warm_start: bool | None = None  # from the champion where there is one that fits, else from `init`; see Recipe
    dropout: float = Field(0.0, ge=0, lt=1)  # of the prompt's numbers, in each training step
    activations: Literal["bf16", "fp32"] = "bf16"  # how exactly training keeps what of a text the prompt cannot change
    encoder: Literal["lstm", "mlp"] = "lstm"  # between the table and the prompt
    hidden: int = Field(512, ge=1)  # width of the encoder's hidden layer, or of an instance gate's
    bottleneck: int = Field(128, ge=1)  # width of the residual network's hidden layer
    basis: int = Field(128, ge=1)  # token embeddings that every vector of the prompt is a superposition of
    half: Literal["encoder", "decoder"] = "encoder"  # of an encoder-decoder: which of the two reads the prompt
    layer: int | None = Field(None, ge=1)  # the first that reads the prompt, counted from 0
    rank: int = Field(8, ge=1)  # of an instance gate, of the text's offsets, or of a generator's summary
    positions: int = Field(128, ge=1)  # of the text that get an offset, from its start
    offset_rate: Rate | None = None  # of the offsets; None: the same rate

    @model_validator(mode="before")
    @classmethod
    def _encoders_read_wide_tables(cls, given: Any) -> Any:
        wide = isinstance(given, dict) and given.get("method") in ("p-tuning", "prefix-tuning", "iapt")
        return {"init_scale": 1.0, **given} if wide else given

    @model_validator(mode="after")
    def _keys_fit(self) -> Prompt:
        if strange := self._of_other_methods() & self.model_fields_set:
            own = f"it has {listed(OWN_KEYS[self.method])}" if OWN_KEYS[self.method] else "it has none of its own"
            raise ValueError(f"{self.method} has no key {listed(strange)}; beside the keys of every method {own}")
        if (self.init == "text") != (self.init_text is not None):
            raise ValueError("init_text belongs to init = 'text', and that start needs it")
        if self.warm_start and self.method not in WARM:
            raise ValueError(
                f"warm_start needs a method whose artifact holds all that it trains: {listed(WARM)}. Of {self.method} "
                "it holds what an encoder gave, and not the encoder"
            )
        if self.half == "decoder" and (self.method not in INSERTED or self.warm_start):
            raise ValueError(
                f"half = 'decoder' is for vectors among input embeddings, started anew: the methods {listed(INSERTED)} "
                f"without warm_start. Here are method = {self.method!r} and warm_start = {self.warm_start!r}"
            )
        if self.method == "late" and self.layer is None:
            raise ValueError("late needs the key 'layer': how many layers of the base run before the prompt enters")
        return self

    @model_serializer(mode="wrap")
    def _what_it_has(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        not_asked = {
            "init_text": self.init_text is None,
            "warm_start": self.warm_start is None,
            "activations": self.activations == "bf16",
            "half": self.half == "encoder",
        }
        absent = self._of_other_methods() | {key for key, silent in not_asked.items() if silent}
        return {key: value for key, value in dump(self).items() if key not in absent}

    def rate_of(self, parameter: str) -> float:
        """The learning rate of a parameter, by the name it is trained under."""
        own = self.offset_rate if ".offsets_" in parameter else None
        return own or super().rate_of(parameter)

    def _of_other_methods(self) -> set[str]:
        return {key for keys in OWN_KEYS.values() for key in keys} - set(OWN_KEYS[self.method])


class Lora(Method):
    """`[baselines.lora]`: low-rank updates of the attention's projections."""

    rank: int = Field(8, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)  # of what the updates read, in each training step
    targets: tuple[str, ...] | Literal["attention"] = (
        "attention"  # names of linear layers; "attention": query and value
    )


class Adapters(Method):
    """`[baselines.adapters]`: a small network of two linear maps behind each layer's feed-forward part."""

    bottleneck: int = Field(64, ge=1)  # width between the two
    dropout: float = Field(0.0, ge=0, lt=1)  # of what the adapters read, in each training step


class Full(Method):
    """`[baselines.full]`: every weight of the base, its own dropout on."""

    dropout: bool = True


class HeadOnly(Method):
    """`[baselines.head_only]`: the floor, a linear head on the untouched base."""


class ZeroShot(Section):
    """`[baselines.zero_shot]`: the untouched base through its own language-model head; needs a verbaliser."""


BASELINES = ("lora", "adapters", "full", "head_only", "zero_shot")


class Baselines(Section):
    """`[baselines]`: what the prompt is measured against."""

    lora: Lora | None = None
    adapters: Adapters | None = None
    full: Full | None = None
    head_only: HeadOnly | None = None
    zero_shot: ZeroShot | None = None
    keep_days: float | None = Field(None, gt=0)  # how old weights of other data may be; None: none are kept

    def named(self) -> Iterator[tuple[str, Method | ZeroShot]]:
        """The baselines this recipe asks for, by name."""
        for name in BASELINES:
            if (baseline := getattr(self, name)) is not None:
                yield name, baseline

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that were written before there were adapters or kept weights keep their digests.
        not_asked = {key for key in ("adapters", "keep_days") if getattr(self, key) is None}
        return {key: value for key, value in dump(self).items() if key not in not_asked}
