"""A recipe is read whole or refused with all that is wrong; its digest is what it asks for."""

from __future__ import annotations

import copy
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.digests import digest_json
from pipelines.errors import RecipeError
from pipelines.recipe import (
    BASELINES,
    INSERTED,
    OWN_KEYS,
    Adapters,
    Baselines,
    Lora,
    Prompt,
    Recipe,
    ZeroShot,
    load_recipe,
)

MINIMAL = """
name = "tickets"
[base]
name = "tiny"
sources = ["file://base"]
[data]
path = "tickets.csv"
labels = ["account", "billing"]
[prompt]
method = "p-tuning-v2"
tokens = 8
rate = 0.01
"""
FULL = (
    MINIMAL.replace('name = "tickets"', 'name = "tickets"\ndescription = "words"\nseed = 4', 1)
    + """
[base.files]
"config.json" = "{a}"
[data.checks]
min_rows = 7
[template]
text = "{{text}} it is"
[head]
kind = "verbaliser"
words = ["one", "two"]
[training]
epochs = 2
[baselines.lora]
rate = 0.1
[baselines.full]
rate = 0.1
[baselines.zero_shot]
[gates]
non_inferior = [{{ to = "lora", margin = 2.0 }}, {{ to = "champion", margin = 1.0 }}]
[gates.budgets]
artifact_bytes = 9
[promotion]
policy = "automatic"
""".format(a="a" * 64)
)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a recipe; gives its path."""

    def write(text: str, name: str = "recipe.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert repr(str(path)) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", [MINIMAL, FULL], ids=["minimal", "full"])
def test_a_recipe_is_read(write: Any, text: str) -> None:
    path = write(text)
    recipe = load_recipe(path)
    assert recipe == load_recipe(str(path)) and recipe.folder == path.parent.resolve()
    assert recipe.prompt == Prompt(method="p-tuning-v2", tokens=8, rate=0.01, init="random", init_scale=0.02)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 3  # type: ignore[misc]


def test_baselines_are_those_that_are_asked_for(write: Any) -> None:
    assert list(load_recipe(write(MINIMAL)).baselines.named()) == []
    named = dict(load_recipe(write(FULL)).baselines.named())
    assert list(named) == ["lora", "full", "zero_shot"]
    assert named["lora"] == Lora(rate=0.1) and named["zero_shot"] == ZeroShot()
    assert [*BASELINES, "keep_days"] == list(Baselines.model_fields)


# What is refused.


UNKNOWN = [
    ("", "sed = 1", "sed: unknown key. Known here: 'base', 'baselines', 'data'"),
    ("[base]", 'commit = "x"', "base.commit: unknown key. Known here: 'files', 'name', 'sources'."),
    (
        "[data]",
        'txt = "x"',
        "data.txt: unknown key. Known here: 'checks', 'encoding', 'label', 'labels', 'pair'",
    ),
    ("[prompt]", "lr = 1", "prompt.lr: unknown key. Known here: 'activations', 'basis', 'bottleneck', 'dropout'"),
    (
        "[data.checks]",
        "rows = 1",
        "data.checks.rows: unknown key. Known here: 'encoding_damage', 'languages', 'max_chars'",
    ),
    (
        "[baselines.lora]",
        "r = 1",
        "baselines.lora.r: unknown key. Known here: 'alpha', 'dropout', 'epochs', 'head_rate'",
    ),
    ("[baselines.zero_shot]", "x = 1", "baselines.zero_shot.x: unknown key. Known here: (none)."),
    (
        "[gates]",
        "margin = 1",
        "gates.margin: unknown key. Known here: 'budgets', 'confidence', 'disagreement', 'max_ece'",
    ),
    (
        "[gates.budgets]",
        "bytes = 1",
        "gates.budgets.bytes: unknown key. Known here: 'added_latency_ms', 'artifact_bytes', 'latency_tokens'",
    ),
    (
        "",
        "[baselines.adapter]\nrate = 1.0",
        "baselines.adapter: unknown key. Known here: 'adapters', 'full', 'head_only', 'keep_days', 'lora'",
    ),
]


@pytest.mark.parametrize(("table", "line", "message"), UNKNOWN, ids=[row[2].split(":")[0] for row in UNKNOWN])
def test_an_unknown_key_is_named_with_the_known_ones(write: Any, table: str, line: str, message: str) -> None:
    if not table and not line.startswith("["):
        text = f"{line}\n{FULL}"
    elif table:
        text = FULL.replace(f"{table}\n", f"{table}\n{line}\n", 1)
    else:
        text = FULL + line
    assert message in refused(write(text))


def test_an_unknown_key_in_a_list_of_tables_is_found(write: Any) -> None:
    text = FULL.replace("margin = 2.0", "margin = 2.0, points = 1")
    assert "gates.non_inferior.0.points: unknown key. Known here: 'margin', 'to'." in refused(write(text))


def test_all_problems_are_named_at_once(write: Any) -> None:
    text = MINIMAL.replace("tokens = 8", 'tokens = 0\nhue = "red"').replace('path = "tickets.csv"', "")
    lines = refused(write(text)).splitlines()[1:]
    assert sorted(line.split(":")[0].strip() for line in lines) == ["data.path", "prompt.hue", "prompt.tokens"]
    assert "  data.path: missing." in lines
    assert any("greater than or equal to 1 (got 0)" in line for line in lines)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('labels = ["account", "billing"]', 'labels = ["a", "a"]', "data: labels must differ, got ['a', 'a']"),
        ('path = "tickets.csv"', 'path = "x"\nslices = ["a", "a"]', "data: slices must differ, got ['a', 'a']"),
        ('path = "tickets.csv"', 'path = "x"\nslices = ["text"]', "columns of few values, not the text's"),
        ("[gates]", "[gates]\nper_slice_accuracy = 0.5", "gates.per_slice_accuracy needs data.slices"),
        ('labels = ["account", "billing"]', 'labels = ["a"]', "labels must name at least two classes"),
        ('text = "{text} it is"', 'text = "it is"', "must contain {text} exactly once, got 'it is'"),
        ('text = "{text} it is"', 'text = "{text}{text}"', "must contain {text} exactly once"),
        ('kind = "verbaliser"', 'kind = "linear"', "head.words belongs to head.kind = 'verbaliser'"),
        ('words = ["one", "two"]', "", "a verbaliser needs it"),
        ('words = ["one", "two"]', 'words = ["one"]', "head.words must name one word per label: 1 for 2 labels"),
        ("[baselines.zero_shot]", "[baselines.head_only]\nrate = 1.0", "head_only needs head.kind = 'linear'"),
        ('[head]\nkind = "verbaliser"\nwords = ["one", "two"]', "", "zero_shot needs head.kind = 'verbaliser'"),
        ("[baselines.lora]\nrate = 0.1", "", "a gate compares with 'lora', but there is no [baselines.lora]"),
        ("[gates]", '[gates]\nsuperior = [{ to = "head_only" }]', "a gate compares with 'head_only', but there is no"),
        ('to = "champion"', 'to = "chief"', "gates.non_inferior.1.to: Input should be 'lora', 'adapters', 'full'"),
        ('method = "p-tuning-v2"', 'method = "magic"', "prompt.method: Input should be 'prompt-tuning', 'p-tuning'"),
        ('name = "tickets"', 'name = "Tickets!"', "name: String should match pattern"),
        ("a" * 64, "A" * 64, "base.files.config.json: String should match pattern"),
        ('sources = ["file://base"]', "sources = []", "base.sources: Tuple should have at least 1 item"),
        ("rate = 0.01", "rate = 0", "prompt.rate: Input should be greater than 0 (got 0)"),
        ("seed = 4", "seed = -1", "seed: Input should be greater than or equal to 0 (got -1)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_value(write: Any, old: str, new: str, message: str) -> None:
    assert FULL.count(old) == 1
    assert message in refused(write(FULL.replace(old, new)))


def test_a_missing_recipe_names_its_neighbours(tmp_path: Path, write: Any) -> None:
    write(MINIMAL, "beta.toml"), write(MINIMAL, "alpha.toml"), write("", "notes.txt")
    assert "In that folder: 'alpha.toml', 'beta.toml'." in refused(tmp_path / "gamma.toml")
    assert "In that folder: (no such folder)." in refused(tmp_path / "nowhere/gamma.toml")


@pytest.mark.parametrize("data", [b"name = ", b"\xff\xfe", b"[a]\n[a]"])
def test_what_is_no_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "recipe.toml").write_bytes(data)
    assert "Cannot read the recipe" in refused(tmp_path / "recipe.toml")
    assert "Cannot read the recipe" in refused(tmp_path)


OTHER_METHODS = [
    (method, key) for method in OWN_KEYS for key in ("encoder", "hidden", "bottleneck", "basis", "rank", "positions")
]


def least(method: str, **more: object) -> Prompt:
    """The least that a prompt of a method can say."""
    layer = {"layer": 1} if method == "late" else {}
    return Prompt.model_validate({"method": method, "tokens": 4, "rate": 0.1, **layer, **more})


@pytest.mark.parametrize(("method", "key"), OTHER_METHODS)
def test_a_key_belongs_to_the_methods_that_read_it(write: Any, method: str, key: str) -> None:
    text = MINIMAL.replace(
        'method = "p-tuning-v2"', f'method = "{method}"\n{key} = ' + ('"mlp"' if key == "encoder" else "9")
    )
    if key in OWN_KEYS[method]:
        assert load_recipe(write(text)).prompt.model_dump()[key] in (9, "mlp")
        return
    message = refused(write(text))
    assert f"prompt: {method} has no key '{key}'; beside the keys of every method it has " in message
    assert all(f"'{own}'" in message for own in OWN_KEYS[method])


def test_an_encoders_table_starts_wide_unless_told_otherwise() -> None:
    scales = {method: least(method).init_scale for method in OWN_KEYS}
    assert scales == {method: 1.0 if method in ("p-tuning", "prefix-tuning", "iapt") else 0.02 for method in OWN_KEYS}
    assert least("p-tuning", init_scale=0.5).init_scale == 0.5


def test_a_late_prompt_says_how_late(write: Any) -> None:
    late = MINIMAL.replace('method = "p-tuning-v2"', 'method = "late"')
    assert "late needs the key 'layer': how many layers of the base run before" in refused(write(late))
    assert load_recipe(write(late + "layer = 6")).prompt.layer == 6


def test_no_position_that_no_text_has_gets_an_offset(write: Any) -> None:
    dept = MINIMAL.replace('method = "p-tuning-v2"', 'method = "dept"') + "[template]\nmax_tokens = 100"
    message = "prompt.positions = 128 is more than template.max_tokens = 100"
    assert message in refused(write(dept))
    assert load_recipe(write(dept.replace("[template]", "positions = 100\n[template]"))).prompt.positions == 100
    assert load_recipe(write(dept.replace("dept", "lopa"))).template.max_tokens == 100


@pytest.mark.parametrize("method", OWN_KEYS)
def test_the_template_may_say_where_vectors_stand(write: Any, method: str) -> None:
    layer = "\nlayer = 1" if method == "late" else ""
    text = MINIMAL.replace('method = "p-tuning-v2"', f'method = "{method}"{layer}')
    path = write(text + '[template]\ntext = "{text} {prompt} it is"\n')
    if method in INSERTED:
        assert load_recipe(path).template.marked
    else:
        assert f"puts the prompt at {{prompt}}, which prompt.method = '{method}' cannot do" in refused(path)


def test_which_half_reads_the_prompt_is_said_only_where_it_is_the_decoder(write: Any) -> None:
    assert "half" not in least("prompt-tuning").model_dump()
    assert least("residual", half="decoder").model_dump()["half"] == "decoder"
    assert "half = 'decoder' is for vectors" in refused(write(MINIMAL + 'half = "decoder"'))  # of p-tuning-v2
    text = MINIMAL.replace("p-tuning-v2", "prompt-tuning") + 'half = "decoder"\n'
    assert "needs head.kind = 'verbaliser'" in refused(write(text))


def test_every_part_of_a_method_has_its_rate() -> None:
    settings = least("dept", head_rate=0.2, offset_rate=0.3)
    names = ("prompt.embeddings", "head.weight", "prompt.offsets_a", "prompt.inner.offsets_b")
    assert [settings.rate_of(name) for name in names] == [0.1, 0.2, 0.3, 0.3]
    assert [least("dept").rate_of(name) for name in names] == [0.1] * 4


@pytest.mark.parametrize("line", ['init_text = "x"', 'init = "text"', 'init = "labels"\ninit_text = "x"'])
def test_a_text_to_start_from_and_its_start_go_together(write: Any, line: str) -> None:
    assert "init_text belongs to init = 'text', and that start needs it" in refused(write(MINIMAL + line))
    assert load_recipe(write(MINIMAL + 'init = "text"\ninit_text = "x"')).prompt.init_text == "x"


PAIR = MINIMAL.replace("path =", 'pair = "second"\npath =')


def test_a_pair_needs_a_column_and_a_place(write: Any) -> None:
    template = '[template]\ntext = "{text}{sep}{pair}"\n'
    recipe = load_recipe(write(PAIR + template))
    assert recipe.template.of_pairs and recipe.data.pair == "second"
    for text in (PAIR, MINIMAL + template):
        assert "data.pair and {pair} in template.text belong together" in refused(write(text))
    assert "both are 'second'" in refused(write(PAIR.replace("path =", 'text = "second"\npath =') + template))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{text}{pair}{pair}", "may contain {pair} once"),
        ("{text}{sep}", "{sep} may stand once, between {text} and {pair}"),
        ("{sep}{text}{pair}", "{sep} may stand once, between {text} and {pair}"),
        ("{pair}{sep}and{sep}{text}", "{sep} may stand once, between {text} and {pair}"),
    ],
)
def test_a_template_of_pairs_is_read_whole(write: Any, text: str, message: str) -> None:
    assert message in refused(write(PAIR + f'[template]\ntext = "{text}"\n'))


# The digest.


@pytest.mark.parametrize("method", OWN_KEYS)
def test_a_prompt_says_all_that_its_method_reads_and_nothing_else(method: str) -> None:
    prompt = least(method)
    everything = set(Prompt.model_fields) - {"init_text", "warm_start", "activations", "half"}
    others = {key for keys in OWN_KEYS.values() for key in keys} - set(OWN_KEYS[method])
    assert set(prompt.model_dump(mode="json")) == everything - others
    assert Prompt.model_validate(prompt.model_dump(mode="json")) == prompt
    assert least(method, activations="fp32").model_dump()["activations"] == "fp32"
    assert least(method, activations="bf16").model_dump() == prompt.model_dump(), "what is not said is bf16"


def test_the_digest_knows_neither_description_nor_place(write: Any, tmp_path: Path) -> None:
    path = write(FULL)
    other = tmp_path / "elsewhere/other.toml"
    other.parent.mkdir()
    shutil.copyfile(path, other)
    other.write_text(FULL.replace('"words"', '"other words"'))
    assert load_recipe(other).digest == load_recipe(path).digest
    assert load_recipe(other).folder != load_recipe(path).folder


def test_a_default_written_out_changes_nothing(write: Any) -> None:
    before = load_recipe(write(MINIMAL)).digest
    written = MINIMAL + 'init = "random"\ninit_scale = 0.02\n[training]\nclip = 1.0\n[head]\nkind = "linear"\n'
    assert load_recipe(write(written)).digest == before


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of every single value in nested tables and lists."""
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, (*path, name))]
    if isinstance(value, list):
        return [leaf for place, inner in enumerate(value) for leaf in leaves(inner, (*path, place))]
    return [path]


WHOLE = Recipe.model_validate(tomllib.loads(FULL)).model_dump(mode="json", exclude={"description"})


def test_a_recipe_of_single_texts_keeps_its_digest(write: Any) -> None:
    recipe = load_recipe(write(MINIMAL))
    assert "pair" not in recipe.model_dump(mode="json")["data"]
    paired = load_recipe(write(PAIR + '[template]\ntext = "{text}{pair}"\n'))
    assert paired.model_dump(mode="json")["data"]["pair"] == "second" and paired.digest != recipe.digest


def test_adapters_that_are_not_asked_for_leave_the_digest_alone(write: Any) -> None:
    """Beside whatever else a recipe measures against or sweeps."""
    sweep = "[[sweep.lora]]\nrate = [0.1, 0.2]\n"
    before = load_recipe(write(FULL.replace("[promotion]", f"{sweep}[promotion]")))
    dumped = before.model_dump(mode="json")
    assert set(dumped["baselines"]) == {"lora", "full", "head_only", "zero_shot"}
    assert set(dumped["sweep"]) == {"prompt", "lora", "full", "head_only"}
    asked = FULL.replace("[gates]", "[baselines.adapters]\nrate = 0.1\n[gates]").replace('"lora", m', '"adapters", m')
    asked = asked.replace("[promotion]", f"{sweep.replace('lora', 'adapters')}[promotion]")
    recipe = load_recipe(write(asked))
    assert recipe.baselines.adapters == Adapters(rate=0.1, bottleneck=64, dropout=0.0)
    assert recipe.gates.opponents == ("adapters", "champion") and recipe.sweep is not None
    assert [method for method, _ in recipe.sweep.combinations()] == ["adapters"] * 2
    assert Recipe.model_validate(recipe.model_dump(mode="json")).digest == recipe.digest != before.digest


def test_drift_that_is_not_looked_for_leaves_the_digest_alone(write: Any) -> None:
    plain = load_recipe(write(MINIMAL))
    assert plain.drift is None and "drift" not in plain.model_dump()
    asked, spelt = load_recipe(write(MINIMAL + "[drift]")), load_recipe(write(MINIMAL + '[drift]\nthen = "note"'))
    assert asked.digest == spelt.digest != plain.digest


def test_gates_that_are_not_asked_for_leave_the_digest_alone(write: Any) -> None:
    """What 0.1.0's recipes did not know is absent where it is at its default, so their runs stay unchanged."""
    before = load_recipe(write(FULL))
    assert set(before.gates.model_dump()) == {"confidence", "resamples", "non_inferior", "budgets"}
    silent = FULL.replace("[gates]\n", "[gates]\nmin_power = 0.0\ndisagreement = 0.1\n")
    assert load_recipe(write(silent)).digest == before.digest
    assert "slices" not in before.data.model_dump()
    asked = load_recipe(write(FULL.replace("[gates]\n", "[gates]\nmin_power = 0.5\n")))
    assert asked.gates.model_dump()["min_power"] == 0.5
    assert asked.gates.model_dump()["disagreement"] == 0.1, "it decides now, so it is said"
    other = load_recipe(write(FULL.replace("[gates]\n", "[gates]\ndisagreement = 0.2\n")))
    assert len({before.digest, asked.digest, other.digest}) == 3
    assert Recipe.model_validate(asked.model_dump(mode="json")).digest == asked.digest


@given(st.sampled_from(leaves(WHOLE)), st.data())
def test_the_digest_feels_every_change(leaf: tuple[Any, ...], data: st.DataObject) -> None:
    changed = copy.deepcopy(WHOLE)
    *way, last = leaf
    table = changed
    for part in way:
        table = table[part]
    old = table[last]
    choices: dict[type, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(1, 2000),
        float: st.floats(0.51, 0.99),
        str: st.text("abcdef0", min_size=1),
    }
    table[last] = data.draw(choices.get(type(old), st.integers(1, 99)))
    try:
        recipe = Recipe.model_validate(changed)
    except ValidationError:
        return  # a choice of words, or a rule across fields: refused, which is heard too
    same = recipe.model_dump(mode="json", exclude={"description"}) == WHOLE
    assert (recipe.digest == digest_json(WHOLE)) == same
    assert same == (table[last] == old)


# Generation.

WRITES = (
    MINIMAL.replace('labels = ["account", "billing"]', 'target = "reply"')
    + '[head]\nkind = "generation"\nmax_new_tokens = 9\n[gates]\nmetric = "bleu"\n'
)


def test_a_recipe_of_texts_says_what_decides_and_no_labels(write: Any) -> None:
    recipe = load_recipe(write(WRITES))
    said = recipe.model_dump(mode="json")
    assert said["data"]["target"] == "reply" and not {"label", "labels"} & said["data"].keys()
    assert said["head"] == {"kind": "generation", "words": None, "max_new_tokens": 9}
    assert Recipe.model_validate(said).digest == recipe.digest  # as a sweep and a provenance read it
    longer = load_recipe(write(WRITES.replace("= 9", "= 10"), "longer.toml"))
    judged = load_recipe(write(WRITES.replace("bleu", "rouge_l"), "judged.toml"))
    watched = load_recipe(write(WRITES + "[drift]\n", "watched.toml"))
    assert len({recipe.digest, longer.digest, judged.digest, watched.digest}) == 4
    assert Recipe.model_validate(watched.model_dump(mode="json")).digest == watched.digest


def test_a_recipe_of_labels_says_nothing_of_texts(write: Any) -> None:
    said = load_recipe(write(MINIMAL)).model_dump(mode="json")
    assert "target" not in said["data"] and "max_new_tokens" not in said["head"] and "metric" not in said["gates"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('target = "reply"', 'labels = ["a", "b"]', "data.target, the column of the texts to be written"),
        ('target = "reply"', 'target = "reply"\nlabels = ["a", "b"]', "no labels and no slices: leave out 'labels'"),
        ('target = "reply"', 'target = "text"', "target must be a column of its own; 'text' is what the base reads"),
        ('target = "reply"', 'target = "reply"\n[data.checks]\nmin_rows_per_label = 9', "checks.min_rows_per_label"),
        ("max_new_tokens = 9", "", "max_new_tokens belongs to kind = 'generation', which needs it"),
        ('metric = "bleu"', "", "gates.metric ('bleu', 'rouge_l', 'token_f1' or 'exact_match')"),
        ('metric = "bleu"', 'metric = "bleu"\nmax_ece = 0.1', "gates has 'max_ece', which judge answers"),
        ('metric = "bleu"', 'metric = "bleu"\nmin_power = 0.5', "gates has 'min_power'"),
        ("[gates]", "[baselines.head_only]\nrate = 0.1\n[gates]", "generation has nothing to train"),
        ("[gates]", "[drift]\nlabels = 0.2\n[gates]", "drift.labels is of labels"),
        ("rate = 0.01", 'rate = 0.01\ninit = "labels"', "prompt.init = 'labels' starts from label words"),
    ],
)  # fmt: skip
def test_what_texts_do_not_have_is_refused(write: Any, old: str, new: str, message: str) -> None:
    assert WRITES.count(old) == 1
    assert message in refused(write(WRITES.replace(old, new)))


def test_a_metric_without_texts_is_refused(write: Any) -> None:
    assert "belongs to head.kind = 'generation'" in refused(write(MINIMAL + '[gates]\nmetric = "bleu"\n'))
