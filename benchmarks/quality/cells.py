"""What is compared: sets of real data on two small bases, and the equal number of settings that each method may try."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.recipe import (
    Adapters,
    Baselines,
    Checks,
    Data,
    Full,
    HeadOnly,
    Lora,
    Optimisation,
    Prompt,
    Recipe,
    Sweep,
    Template,
    load_recipe,
)

ROOT = Path(__file__).resolve().parents[2]
BASES = {"minilm": "sst2.toml", "tiny_llama": "subj_decoder.toml"}  # the recipe whose base this is

SEARCH_ROWS, TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 500, 2000, 500, 2000  # at most
EPOCHS = {SEARCH_ROWS: 6, TRAIN_ROWS: 4}  # as many as ten hours of a processor allow for all six cells
SEEDS = (17, 18, 19)
FINALISTS = 4  # presets that go on from the search

GRID: dict[str, dict[str, Any]] = {  # four settings each
    "prompt-tuning": {"rate": [0.03, 0.3], "init": ["vocabulary", "random"]},
    "p-tuning": {"rate": [1e-3, 1e-2], "encoder": ["lstm", "mlp"], "hidden": 256},
    "p-tuning-v2": {"rate": [0.03, 0.1], "init": "vocabulary", "dropout": [0.0, 0.1]},
    "prefix-tuning": {"rate": [1e-3, 5e-3], "hidden": [64, 256]},
    "residual": {"rate": [0.03, 0.3], "bottleneck": [32, 128]},
    "superpos": {"rate": [0.01, 0.1], "init": ["vocabulary", "random"]},
    "late": {"rate": [0.03, 0.3], "layer": [2, 4]},
    "lopa": {"rate": [3e-3, 1e-2], "hidden": [64, 256]},
    "dept": {"rate": [0.03, 0.3], "offset_rate": [1e-3, 1e-2]},
    "iapt": {"rate": [1e-3, 5e-3], "rank": [8, 32]},
    "adapters": {"rate": [1e-3, 3e-3], "bottleneck": [16, 64]},
    "lora": {"rate": [5e-4, 1e-3, 2e-3, 4e-3]},
    "full": {"rate": [5e-5, 1e-4, 2e-4, 4e-4]},
    "head_only": {"rate": [3e-3, 1e-2, 3e-2, 1e-1]},
}
BASELINES = ("adapters", "lora", "full", "head_only")
PRESETS = tuple(method for method in GRID if method not in BASELINES)
METHODS = ("zero_shot", "head_only", *PRESETS, "adapters", "lora", "full")  # as the tables list them


@dataclass(frozen=True)
class Set:
    """A table of texts with labels, and how long its texts may be."""

    path: str  # below the folder of the sets
    labels: tuple[str, ...]
    max_tokens: int
    metric: str = "accuracy"


SETS = {
    "sst2_sentences": Set("sst2_sentences/sst2_sentences.parquet", ("negative", "positive"), 64),
    "ag_news": Set("ag_news/ag_news.parquet", ("Business", "Sci/Tech", "Sports", "World"), 96),
    "subj": Set("subj/subj.parquet", ("objective", "subjective"), 64),
    "sms_spam": Set("sms_spam/sms_spam.parquet", ("ham", "spam"), 64, "macro_f1"),
    "pros_cons": Set("pros_cons/pros_cons.parquet", ("con", "pro"), 48),
}
WORDS = {  # zero-shot: what stands behind the text, and the label words; four settings each, where a base has words
    ("subj", "tiny_llama"): [
        (behind, words)
        for behind in (" This sentence is", " It is")
        for words in (("fact", "opinion"), ("objective", "personal"))
    ],
    ("pros_cons", "tiny_llama"): [
        (behind, words) for behind in (" It was", " All in all it is") for words in (("bad", "good"), ("poor", "great"))
    ],
}
CELLS = (
    ("sst2_sentences", "minilm"),
    ("ag_news", "minilm"),
    ("subj", "minilm"),
    ("sms_spam", "minilm"),
    ("subj", "tiny_llama"),
    ("pros_cons", "tiny_llama"),
)


def recipe_for(name: str, base: str, table: Path, rows: int) -> Recipe:
    """A cell's recipe on a table of so many training rows, every method in it at the first setting of its grid."""
    lent = load_recipe(ROOT / "recipes" / BASES[base])
    asked = SETS[name]
    recipe = Recipe(
        name=f"{name}-{base}".replace("_", "-"),
        base=lent.base,
        data=Data(path=str(table), labels=asked.labels, split="split", checks=Checks(max_quarantined=0.2)),
        template=Template(max_tokens=asked.max_tokens),
        training=Optimisation(epochs=EPOCHS[rows], batch_size=32, precision="bf16"),
        prompt=Prompt(method="prompt-tuning", tokens=16, rate=0.3, head_rate=5e-3),
        baselines=Baselines(
            lora=Lora(rate=1e-3, head_rate=5e-3),
            adapters=Adapters(rate=1e-3, head_rate=5e-3),
            full=Full(rate=1e-4, head_rate=5e-3),
            head_only=HeadOnly(rate=1e-2),
        ),
    )
    recipe._folder = lent.folder
    return recipe


def sweep_of(method: str, name: str) -> Sweep:
    """The settings that one method may try on a set."""
    if method in BASELINES:
        return Sweep(**{method: (GRID[method],)})
    all_of_the_text = {"positions": SETS[name].max_tokens} if method == "dept" else {}
    return Sweep(prompt=({"method": method, **GRID[method], **all_of_the_text},))
