"""A recipe: one tuned problem in one TOML file, read into a frozen value that knows its digest.

Nothing that changes a result has a hidden default: what a recipe leaves out is filled in here, in sight, and goes into
the digest and into the artifact like everything else. Where something runs (workers, devices) is not a recipe's matter:
see `training/compute.py`.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from .digests import digest_json
from .errors import RecipeError, listed

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$", max_length=64)]


class Section(BaseModel):
    """A table of a recipe: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BasePin(Section):
    """`[base]`: which frozen model, where it may come from, and the digests that decide."""

    name: str
    sources: tuple[str, ...] = Field(min_length=1)  # hf://ORG/MODEL@COMMIT, pypi://PACKAGE==VERSION, file://, s3://
    files: dict[str, Sha256] | None = (
        None  # exactly these files; None: all that a model needs, digested when first seen
    )


class Checks(Section):
    """`[data.checks]`: what a row must be (contract), and what the set must be (expectations)."""

    min_chars: int = Field(1, ge=1)
    max_chars: int = Field(4000, ge=1)
    max_quarantined: Fraction = 0.05  # of all rows; above it the run is refused
    min_rows: int = Field(100, ge=1)  # accepted rows in all splits
    min_rows_per_label: int = Field(5, ge=1)  # in the training split
    min_label_share: Fraction = 0.0  # of the accepted rows, for the rarest label


class Data(Section):
    """`[data]`: where examples come from, which columns matter, how they are split."""

    path: str  # a file, a glob, a folder, s3://BUCKET/PREFIX or hf://ORG/SET@REVISION; relative to the recipe's folder
    text: str = "text"
    pair: str | None = None  # the column of a second text, where a label belongs to two of them
    label: str = "label"
    labels: tuple[str, ...] = Field(min_length=2)
    encoding: str = "utf-8"
    split: str | None = None  # a column with train / validation / test; None: by content hash
    validation_fraction: Fraction = 0.1  # of what is not test, where the data bring no validation split
    test_fraction: Fraction = 0.2  # where the data bring no splits
    slices: tuple[str, ...] = ()  # columns by whose values the test split is also told, and may be judged
    checks: Checks = Checks()

    @model_validator(mode="after")
    def _names_differ(self) -> Data:
        for key, names in (("labels", self.labels), ("slices", self.slices)):
            if len(set(names)) != len(names):
                raise ValueError(f"{key} must differ, got {list(names)!r}")
        if {self.text, self.pair} & set(self.slices):
            raise ValueError(f"slices must be columns of few values, not the text's, got {list(self.slices)!r}")
        if self.pair == self.text:
            raise ValueError(f"pair and text name the columns of two texts; both are {self.text!r}")
        return self

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes that were written before there were pairs and slices keep their digests.
        absent = {key for key in ("pair", "slices") if not getattr(self, key)}
        return {key: value for key, value in dump(self).items() if key not in absent}


class Template(Section):
    """`[template]`: how an example becomes the text the base reads.

    Of a pair, `{text}` and `{pair}` are the two texts; `{sep}` between them is what the base's own tokenizer puts
    between two segments, and without it both are one running text.
    """

    text: str = "{text}"
    max_tokens: int = Field(128, ge=4)  # of template, text and special tokens; longer texts lose their end

    @model_validator(mode="after")
    def _names_the_text(self) -> Template:
        if self.text.count("{text}") != 1:
            raise ValueError(f"the template must contain {{text}} exactly once, got {self.text!r}")
        if self.text.count("{pair}") > 1:
            raise ValueError(f"the template may contain {{pair}} once, got {self.text!r}")
        segments = self.text.split("{sep}")
        each_has_one = all(("{text}" in segment) != ("{pair}" in segment) for segment in segments)
        if len(segments) > 2 or (len(segments) == 2 and not each_has_one):
            raise ValueError(f"{{sep}} may stand once, between {{text}} and {{pair}}, got {self.text!r}")
        return self

    @property
    def of_pairs(self) -> bool:
        """Whether an example has two texts."""
        return "{pair}" in self.text


class Head(Section):
    """`[head]`: how hidden states become class scores."""

    kind: Literal["linear", "verbaliser"] = "linear"
    words: tuple[str, ...] | None = None  # verbaliser: one per label, in the order of data.labels


class Optimisation(Section):
    """`[training]`: what the prompt and every baseline share."""

    epochs: int = Field(5, ge=1)
    batch_size: int = Field(32, ge=1)  # rows over all workers
    warmup: Fraction = 0.06  # of the steps, linear from zero; then linear down to zero
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)  # of the gradient's norm
    precision: Literal["fp32", "bf16"] = "fp32"


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
    dropout: float = Field(0.0, ge=0, lt=1)  # of the prompt's numbers, in each training step
    encoder: Literal["lstm", "mlp"] = "lstm"  # between the table and the prompt
    hidden: int = Field(512, ge=1)  # width of the encoder's hidden layer, or of an instance gate's
    bottleneck: int = Field(128, ge=1)  # width of the residual network's hidden layer
    basis: int = Field(128, ge=1)  # token embeddings that every vector of the prompt is a superposition of
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
        if self.method == "late" and self.layer is None:
            raise ValueError("late needs the key 'layer': how many layers of the base run before the prompt enters")
        return self

    @model_serializer(mode="wrap")
    def _what_it_has(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = self._of_other_methods() | ({"init_text"} if self.init_text is None else set())
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


class Full(Method):
    """`[baselines.full]`: every weight of the base, its own dropout on."""

    dropout: bool = True


class HeadOnly(Method):
    """`[baselines.head_only]`: the floor, a linear head on the untouched base."""


class ZeroShot(Section):
    """`[baselines.zero_shot]`: the untouched base through its own language-model head; needs a verbaliser."""


class Baselines(Section):
    """`[baselines]`: what the prompt is measured against."""

    lora: Lora | None = None
    full: Full | None = None
    head_only: HeadOnly | None = None
    zero_shot: ZeroShot | None = None

    def named(self) -> Iterator[tuple[str, Method | ZeroShot]]:
        """The baselines this recipe asks for, by name."""
        for name in type(self).model_fields:
            if (baseline := getattr(self, name)) is not None:
                yield name, baseline


class NonInferiority(Section):
    """`[[gates.non_inferior]]`: the prompt may trail `to` by less than `margin` points of accuracy."""

    to: Literal["lora", "full", "champion"]
    margin: float = Field(gt=0, lt=100)  # percentage points


class Superiority(Section):
    """`[[gates.superior]]`: the prompt must be ahead of `to` by more than `margin` points of accuracy."""

    to: Literal["lora", "full", "head_only", "zero_shot", "champion"]
    margin: float = Field(0.0, ge=0, lt=100)  # percentage points


class Budgets(Section):
    """`[gates.budgets]`: how large a prompt may be."""

    artifact_bytes: int | None = Field(None, ge=1)
    trainable_params: int | None = Field(None, ge=1)


# What changes nothing at its default, and is then neither in the digest nor in the artifact.
NOT_ASKED = ("superior", "per_label_accuracy", "per_slice_accuracy", "max_ece", "min_power", "disagreement")


class Gates(Section):
    """`[gates]`: what must hold on the test split before a prompt may be promoted.

    A gate that is not asked for is not in the digest: recipes that were written before it keep theirs.
    """

    confidence: float = Field(0.95, gt=0.5, lt=1)  # one-sided, of every gate that rests on the test examples
    resamples: int = Field(10_000, ge=1000)
    non_inferior: tuple[NonInferiority, ...] = ()
    superior: tuple[Superiority, ...] = ()
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

    @model_serializer(mode="wrap")
    def _what_is_asked(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {key for key in NOT_ASKED if getattr(self, key) == type(self).model_fields[key].default}
        if self.min_power:
            absent -= {"disagreement"}  # it decides now, so it is said even at its default
        return {key: value for key, value in dump(self).items() if key not in absent}


Grid = dict[str, Any]  # a value, or a list of the values to try, for each key


class Sweep(Section):
    """`[sweep]`: settings to choose from by the validation split, before the test split has its say.

    Each method has grids of its keys, the prompt's of `seed` too; every combination is tuned on the training split.
    """

    prompt: tuple[Grid, ...] = ()
    lora: tuple[Grid, ...] = ()
    full: tuple[Grid, ...] = ()
    head_only: tuple[Grid, ...] = ()

    def combinations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every method's name with each of its combinations, `{key: value}`."""
        for method in type(self).model_fields:
            for grid in getattr(self, method):
                choices = [value if isinstance(value, list) else [value] for value in grid.values()]
                yield from ((method, dict(zip(grid, values, strict=True))) for values in itertools.product(*choices))


class Promotion(Section):
    """`[promotion]`: what happens to a prompt that passed."""

    policy: Literal["automatic", "manual"] = "manual"


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

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """The folder that relative paths in this recipe start from."""
        return self._folder

    @property
    def digest(self) -> str:
        """What this recipe asks for, whatever it is described as and wherever it lies."""
        return digest_json(self.model_dump(mode="json", exclude={"description"}))

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if (self.data.pair is not None) != self.template.of_pairs:
            raise ValueError(
                "data.pair and {pair} in template.text belong together, as in text = '{text}{sep}{pair}': got "
                f"data.pair = {self.data.pair!r} and template.text = {self.template.text!r}"
            )
        words = self.head.words
        if (self.head.kind == "verbaliser") != (words is not None):
            raise ValueError("head.words belongs to head.kind = 'verbaliser', and a verbaliser needs it")
        if words is not None and len(words) != len(self.data.labels):
            raise ValueError(
                f"head.words must name one word per label: {len(words)} for {len(self.data.labels)} labels"
            )
        if words is None and self.baselines.zero_shot is not None:
            raise ValueError(
                "baselines.zero_shot needs head.kind = 'verbaliser': an untrained linear head knows nothing"
            )
        if words is not None and self.baselines.head_only is not None:
            raise ValueError("baselines.head_only needs head.kind = 'linear': a verbaliser has nothing to train")
        if self.gates.per_slice_accuracy is not None and not self.data.slices:
            raise ValueError("gates.per_slice_accuracy needs data.slices: the columns whose values are slices")
        if self.prompt.method == "dept" and self.prompt.positions > self.template.max_tokens:
            raise ValueError(
                f"prompt.positions = {self.prompt.positions} is more than template.max_tokens = "
                f"{self.template.max_tokens}: the offsets after it would never be trained. Lower it to that"
            )
        compared = {name for name, _ in self.baselines.named()} | {"champion"}
        for gate in self.gates.comparisons:
            if gate.to not in compared:
                raise ValueError(f"a gate compares with {gate.to!r}, but there is no [baselines.{gate.to}]")
        return self

    @model_validator(mode="after")
    def _sweep_is_possible(self) -> Recipe:
        if self.sweep and self.data.split is None and not self.data.validation_fraction:
            raise ValueError("a sweep chooses by the validation split: set data.validation_fraction above 0")
        for method, change in self.sweep.combinations() if self.sweep else ():
            settled = changed(self, method, change).model_copy(update={"sweep": None})
            with _in_one_line(f"sweep.{method}: {change!r} is not possible"):
                Recipe.model_validate(settled.model_dump())
        return self

    @model_serializer(mode="wrap")
    def _what_is_there(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key != "sweep" or value is not None}


def changed(recipe: Recipe, method: str, change: Mapping[str, Any]) -> Recipe:
    """The recipe with some settings of one method changed, and with another `seed` where the change names one.

    Where the prompt's own method changes, the keys that only the old one has are left out.

    Raises:
        ValueError: the changed settings are not valid, or the recipe has no such baseline.
    """
    settings = recipe.prompt if method == "prompt" else getattr(recipe.baselines, method)
    if settings is None:
        raise ValueError(f"sweep.{method} needs [baselines.{method}]")
    if method != "prompt" and "seed" in change:
        raise ValueError(f"sweep.{method}: the seed is the prompt's to choose; every method of the recipe has the same")
    new = {key: value for key, value in change.items() if key != "seed"}
    kept = settings.model_dump(exclude_unset=True)
    if "method" in new:
        kept = {key: value for key, value in kept.items() if not any(key in keys for keys in OWN_KEYS.values())}
    with _in_one_line(f"sweep.{method}: {dict(change)!r} is not possible"):
        settled = type(settings).model_validate({**kept, **new})
        seed = TypeAdapter(Seed).validate_python(change.get("seed", recipe.seed))
    part = {"prompt": settled} if method == "prompt" else {
        "baselines": recipe.baselines.model_copy(update={method: settled})
    }  # fmt: skip
    return recipe.model_copy(update={"seed": seed, **part})


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """The first problem that validation finds in here, as one line that begins with `what`."""
    try:
        yield
    except ValidationError as error:
        raise ValueError(f"{what}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a TOML file, validated.

    Raises:
        RecipeError: no such file, not TOML, an unknown key, or a value out of range; the message names all of them.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = listed(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else "(no such folder)"
        raise RecipeError(f"There is no recipe {str(path)!r}. In that folder: {near}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"Cannot read the recipe {str(path)!r}: {error}.") from error
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        raise RecipeError(f"The recipe {str(path)!r} is not valid:\n{_explained(error)}") from None
    recipe._folder = path.parent.resolve()
    return recipe


def _explained(error: ValidationError) -> str:
    """One line per problem: where, what, the value, and which keys exist where one is unknown."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "recipe"
        if problem["type"] == "extra_forbidden":
            keys = listed(_keys_at(problem["loc"][:-1]))
            lines.append(f"  {where}: unknown key. Known here: {keys}.")
        elif problem["type"] == "missing":
            lines.append(f"  {where}: missing.")
        else:
            lines.append(f"  {where}: {problem['msg'].removeprefix('Value error, ')} (got {problem['input']!r:.120}).")
    return "\n".join(lines)


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at `location`, found by walking the annotations."""
    section: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        section = _section_in(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_in(annotation: Any) -> Any:
    """The section class named in an annotation such as `Lora | None` or `tuple[NonInferiority, ...]`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, getattr(annotation, "__args__", ()))), None)
