"""The problem: which frozen base reads which texts, and how its answer is taken."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ..errors import listed
from .section import Fraction, Section, Sha256


class BasePin(Section):
    """`[base]`: which frozen model, where it may come from, and the digests that decide."""

    name: str
    sources: tuple[str, ...] = Field(min_length=1)  # hf://ORG/MODEL@COMMIT, pypi://PACKAGE==VERSION, file://, s3://
    files: dict[str, Sha256] | None = (
        None  # exactly these files; None: all that a model needs, digested when first seen
    )


OPTIONS = (  # of `[data.checks]`: what is not asked for is not in a recipe's digest
    "min_rows_per_slice", "personal_data", "phone_region", "encoding_damage", "languages", "near_duplicates"
)  # fmt: skip

OF_LABELS = ("min_rows_per_label", "min_label_share", "min_rows_per_slice")


class Checks(Section):
    """`[data.checks]`: what a row must be (contract), and what the set must be (expectations)."""

    min_chars: int = Field(1, ge=1)
    max_chars: int = Field(4000, ge=1)
    max_quarantined: Fraction = 0.05  # of all rows; above it the run is refused
    min_rows: int = Field(100, ge=1)  # accepted rows in all splits
    min_rows_per_label: int = Field(5, ge=1)  # in the training split
    min_label_share: Fraction = 0.0  # of the accepted rows, for the rarest label
    min_rows_per_slice: int | None = Field(None, ge=1)  # test rows of every value of data.slices
    personal_data: Literal["keep", "quarantine", "mask"] = "keep"  # e-mail, phone, payment card, bank account
    phone_region: str | None = Field(None, pattern="^[A-Z]{2}$")  # whose numbers are known without their +
    encoding_damage: Literal["keep", "quarantine"] = "keep"  # lost and wrongly decoded characters
    languages: tuple[str, ...] = ()  # ISO 639; a text that is surely in another one is quarantined
    near_duplicates: float | None = Field(None, ge=0.7, lt=1)  # of a more protected split, as similar as that: a leak

    @model_validator(mode="after")
    def _region_is_used(self) -> Checks:
        if self.phone_region is not None and self.personal_data == "keep":
            raise ValueError("phone_region belongs to personal_data = 'mask' or 'quarantine'")
        return self

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {key: type(self).model_fields[key].default for key in OPTIONS}
        said = dump(self)
        return {key: said[key] for key in said if key not in defaults or getattr(self, key) != defaults[key]}


class Data(Section):
    """`[data]`: where examples come from, which columns matter, how they are split."""

    path: str  # a file, a glob, a folder, s3://BUCKET/PREFIX or hf://ORG/SET@REVISION; relative to the recipe's folder
    text: str = "text"
    pair: str | None = None  # the column of a second text, where a label belongs to two of them
    target: str | None = None  # the column of the text to be written, in the place of a label
    label: str = "label"
    labels: tuple[str, ...] = ()  # at least two, unless there is a target
    encoding: str = "utf-8"
    split: str | None = None  # a column with train / validation / test; None: by content hash
    validation_fraction: Fraction = 0.1  # of what is not test, where the data bring no validation split
    test_fraction: Fraction = 0.2  # where the data bring no splits
    slices: tuple[str, ...] = ()  # columns by whose values the test split is also told, and may be judged
    checks: Checks = Checks()

    @property
    def truth(self) -> Literal["label", "target"]:
        """What accepted rows call the right answer: one of the labels, or a text."""
        return "label" if self.target is None else "target"

    @model_validator(mode="after")
    def _labels_or_target(self) -> Data:
        if self.target is None:
            if len(self.labels) < 2:
                raise ValueError(
                    f"labels must name at least two classes, got {list(self.labels)!r}; or target the column of the "
                    "texts to be written, for head.kind = 'generation'"
                )
            return self
        if self.target in (self.text, self.pair):
            raise ValueError(f"target must be a column of its own; {self.target!r} is what the base reads")
        strange = self.changed_keys(("label", "labels", "slices"))
        strange += [f"checks.{key}" for key in self.checks.changed_keys(OF_LABELS)]
        if strange:
            raise ValueError(
                f"target makes this generation, which has no labels and no slices: leave out {listed(strange)}"
            )
        return self

    @model_validator(mode="after")
    def _names_differ(self) -> Data:
        for key, names in (("labels", self.labels), ("slices", self.slices)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key} must differ, got {list(names)!r}")
        if {self.text, self.pair} & set(self.slices):
            raise ValueError(f"slices must be columns of few values, not the text's, got {list(self.slices)!r}")
        if self.checks.min_rows_per_slice is not None and not self.slices:
            raise ValueError("checks.min_rows_per_slice needs data.slices: the columns whose values are slices")
        if self.pair == self.text:
            raise ValueError(f"pair and text name the columns of two texts; both are {self.text!r}")
        return self

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that were written before there were pairs and slices keep their digests.
        absent = {key for key in ("pair", "slices", "target") if not getattr(self, key)}
        absent |= {"label", "labels"} if self.target is not None else set()
        return {key: value for key, value in dump(self).items() if key not in absent}


class Template(Section):
    """`[template]`: how an example becomes the text the base reads.

    Of a pair, `{text}` and `{pair}` are the two texts; `{sep}` between them is what the base's own tokenizer puts
    between two segments, and without it both are one running text. `{prompt}` is where a soft prompt stands; without
    it the prompt stands before everything.
    """

    text: str = "{text}"
    max_tokens: int = Field(128, ge=4)  # of template, text and special tokens; longer texts lose their end

    @model_validator(mode="after")
    def _names_the_text(self) -> Template:
        if self.text.count("{text}") != 1:
            raise ValueError(f"the template must contain {{text}} exactly once, got {self.text!r}")
        if self.text.count("{pair}") > 1:
            raise ValueError(f"the template may contain {{pair}} once, got {self.text!r}")
        if self.text.count("{prompt}") > 1:
            raise ValueError(f"the template may contain {{prompt}} once: a prompt is in one piece, got {self.text!r}")
        segments = self.text.split("{sep}")
        each_has_one = all(("{text}" in segment) != ("{pair}" in segment) for segment in segments)
        if len(segments) > 2 or (len(segments) == 2 and not each_has_one):
            raise ValueError(f"{{sep}} may stand once, between {{text}} and {{pair}}, got {self.text!r}")
        return self

    @property
    def of_pairs(self) -> bool:
        """Whether an example has two texts."""
        return "{pair}" in self.text

    @property
    def marked(self) -> bool:
        """Whether it says where the soft prompt stands."""
        return "{prompt}" in self.text


class Head(Section):
    """`[head]`: how hidden states become an answer: scores of classes, or a text."""

    kind: Literal["linear", "verbaliser", "generation"] = "linear"
    words: tuple[str, ...] | None = None  # verbaliser: one per label, in the order of data.labels
    max_new_tokens: int | None = Field(None, ge=1)  # generation: of a target in training, and of an answer

    @property
    def generates(self) -> bool:
        """Whether the answer is a text."""
        return self.kind == "generation"

    @model_validator(mode="after")
    def _has_its_keys(self) -> Head:
        if self.generates != (self.max_new_tokens is not None):
            raise ValueError(
                f"max_new_tokens belongs to kind = 'generation', which needs it: got kind = {self.kind!r} and "
                f"max_new_tokens = {self.max_new_tokens!r}"
            )
        return self

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that were written before there was generation keep their digests.
        return {key: value for key, value in dump(self).items() if key != "max_new_tokens" or value is not None}
