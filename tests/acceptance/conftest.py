"""A stranger's workshop: their own recipe, base and data, and promptmint as a command in a process of its own."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "promptmint.cli"]
LABELS = {
    "apples": ["orchard", "cider", "core", "crunchy", "peel", "harvest"],
    "boats": ["harbour", "sail", "anchor", "mast", "deck", "rudder"],
}
FILLERS = ["the", "a", "my", "old", "new", "was", "near", "with", "and", "today", "very", "again", "we", "saw", "one"]
RECIPE = """
name = "orchard"
description = "Whether somebody speaks of apples or of boats"
seed = 3

[base]
name = "stranger/tiny-bert"
sources = ["file://base"]

[data]
path = "talk.csv"
text = "said"
label = "about"
labels = ["apples", "boats"]

[template]
max_tokens = 24

[training]
epochs = 8
batch_size = 16

[prompt]
method = "p-tuning-v2"
tokens = 4
rate = 1e-2
head_rate = 3e-2

[baselines.lora]
rank = 2
alpha = 4
rate = 1e-2
head_rate = 3e-2

[baselines.full]
rate = 1e-3
head_rate = 3e-2

[baselines.head_only]
rate = 3e-2

[gates]
non_inferior = [{ to = "lora", margin = 40.0 }, { to = "champion", margin = 40.0 }]
budgets = { artifact_bytes = 20_000, trainable_params = 2_000 }

[promotion]
policy = "automatic"
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    processor_s: float  # of the command and all that it waited for: another one's load is not in it

    @property
    def json(self) -> dict[str, Any]:
        """Its standard output, which must be one JSON object and nothing else."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Workshop:
    """A folder with recipe, base, data and home; nothing of the caller's settings is seen in it."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def recipe(self) -> Path:
        return self.folder / "orchard.toml"

    @property
    def data(self) -> Path:
        return self.folder / "talk.csv"

    def environment(self, **settings: str) -> dict[str, str]:
        foreign = ("PREFECT_", "MLFLOW_", "PROMPTMINT_", "HF_", "AWS_", "PYTEST_", "COV_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        ours = {
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
            "PROMPTMINT_HOME": str(self.home),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PROMPTMINT_COMPUTE": str(self.folder / "compute.toml"),
            "COLUMNS": "160",
        }
        return {**kept, **ours, **self.settings, **settings}

    def promptmint(self, *arguments: str | Path, timeout_s: float = 500, **settings: str) -> Ended:
        """Run `promptmint ARGUMENTS` in this folder."""
        command = [*COMMAND, *map(str, arguments)]
        start, before = time.monotonic(), _processor_s()
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(**settings), capture_output=True, text=True,
            timeout=timeout_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        spent = time.monotonic() - start, _processor_s() - before
        return Ended(done.returncode, done.stdout, done.stderr, *spent)

    def files(self) -> dict[str, bytes]:
        """Every file of the store."""
        found = [path for path in self.store.rglob("*") if path.is_file()]
        return {path.relative_to(self.store).as_posix(): path.read_bytes() for path in found}

    def edit(self, old: str, new: str) -> None:
        """Change the recipe in one place."""
        recipe = self.recipe.read_text()
        assert recipe.count(old) == 1, old
        self.recipe.write_text(recipe.replace(old, new))


def _processor_s() -> float:
    """What the ended children of this process have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's base: two layers of BERT with random weights, and a tokenizer that knows the words of the data."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *FILLERS, *LABELS["apples"], *LABELS["boats"]]  # a trainer would order them anew each time
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    folder = tmp_path_factory.mktemp("base")
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Different sentences with their labels, told apart by a word or two."""
    rng = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        label = sorted(LABELS)[len(rows) % 2]
        words = rng.choices(FILLERS, k=rng.randint(2, 6)) + rng.sample(LABELS[label], 3)
        rng.shuffle(words)
        rows[" ".join(words)] = label
    return list(rows.items())


@pytest.fixture(scope="session")
def rows() -> Callable[[int, int], list[tuple[str, str]]]:
    """`rows(count, seed)`: different sentences with their labels."""
    return sentences


@pytest.fixture(scope="session")
def workshop(base: Path) -> Callable[..., Workshop]:
    """Makes a workshop in a folder: 400 sentences, two of them without words and one about neither."""

    def make(folder: Path, **settings: str) -> Workshop:
        made = Workshop(folder, settings)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "base").mkdir()
        for path in base.iterdir():
            (folder / "base" / path.name).write_bytes(path.read_bytes())
        (folder / "compute.toml").write_text('device = "cpu"\nthreads = 1\n')
        made.recipe.write_text(RECIPE)
        lines = [f"{text},{label}" for text, label in sentences(400)]
        lines[40:40] = [",apples", "the old pears,pears", "   ,boats"]
        made.data.write_text("said,about\n" + "\n".join(lines) + "\n")
        return made

    return make


@pytest.fixture
def fresh(workshop: Callable[..., Workshop], tmp_path: Path) -> Workshop:
    """A workshop of the test's own, in which nothing was run yet."""
    return workshop(tmp_path / "workshop")
