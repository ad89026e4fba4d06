"""What every test may use: a home of its own, tiny bases, tickets that can be learnt, and a minted prompt."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

OURS = ("PROMPTMINT_", "MLFLOW_")
LABELS = ("account", "billing")
NOUNS = {
    "account": ("password", "login", "profile", "email address", "username"),
    "billing": ("invoice", "refund", "payment", "credit card", "charge"),
}
FRAMES = (
    "the {} is wrong",
    "please help me with my {} today",
    "why does nobody answer my question about the {} that i sent you last week",
    "my {} again",
    "i wrote to you about a {} and i am still waiting",
)


@pytest.fixture(scope="session", autouse=True)
def callers_settings_hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No setting of the caller's reaches a test; the home that is set where nothing else is."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OURS)]:
            patch.delenv(name)
        patch.setenv("PROMPTMINT_HOME", str(home))
        yield home


@pytest.fixture(autouse=True)
def own_home(callers_settings_hidden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROMPTMINT_HOME of this test alone, unless a fixture of its folder has set one for several."""
    if os.environ.get("PROMPTMINT_HOME") == str(callers_settings_hidden):
        for name in [name for name in os.environ if name.startswith(OURS)]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PROMPTMINT_HOME", str(tmp_path / "home"))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Keeps a line on what a test has measured; all of them stand at the end of the run."""
    return partial(record_property, "figure")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures that the tests kept, from whichever process they ran in."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    lines = [line for report in reports for name, line in report.user_properties if name == "figure"]
    if lines:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(dict.fromkeys(lines)))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server for the session; what it is told stays until the end."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@dataclass(frozen=True)
class Ticket:
    """An example that a tiny base can learn."""

    id: str
    text: str
    label: str


@pytest.fixture(scope="session")
def tickets() -> Callable[[int, int], list[Ticket]]:
    """Makes `n` tickets from a seed: every other one of each label, of different lengths."""

    def tickets(n: int, seed: int) -> list[Ticket]:
        rng = np.random.default_rng(seed)
        made = []
        for number in range(n):
            label = LABELS[number % 2]
            text = str(rng.choice(FRAMES)).format(rng.choice(NOUNS[label]))
            made.append(Ticket(f"{seed}-{number:04d}", text, label))
        return made

    return tickets


# Tiny bases, each a folder as a hub would give it: 2 layers, 4 heads, width 32. Their weights are drawn wide, so that
# attention is far from even and a wrong mask, position or head shows in every digit.


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT-like encoder with dropout, and a WordPiece tokenizer that puts a text between [CLS] and [SEP]."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert")
    size = _save_wordpiece(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return _save_model(
        folder, BertModel, BertConfig(vocab_size=size, **sizes, max_position_embeddings=64, initializer_range=0.2)
    )


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2-like decoder with learnt positions, and a byte-level tokenizer that adds nothing."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    size = _save_bytes(folder)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = GPT2Config(vocab_size=size, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.2, **ends)
    return _save_model(folder, GPT2LMHeadModel, config)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama-like decoder: rotary positions, 4 heads sharing 2 key/value heads, tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    size = _save_bytes(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    options = {"num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=size, **sizes, **options, **ends, initializer_range=0.2)
    return _save_model(folder, LlamaForCausalLM, config)


@pytest.fixture(scope="session")
def qwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-like decoder: as a Llama, and its queries, keys and values have biases."""
    from torch import nn
    from transformers import Qwen2Config, Qwen2ForCausalLM

    def biased(config: Qwen2Config) -> Any:
        model = Qwen2ForCausalLM(config)
        for part in model.modules():
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.normal_(part.bias)  # a config's start is zero, where nobody would miss them
        return model

    folder = tmp_path_factory.mktemp("qwen2")
    size = _save_bytes(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    options = {"num_key_value_heads": 2, "tie_word_embeddings": True, "max_position_embeddings": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = Qwen2Config(vocab_size=size, **sizes, **options, **ends, initializer_range=0.2)
    return _save_model(folder, biased, config)


@pytest.fixture(scope="session")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5-like encoder-decoder: positions as a bias on scores, and a Unigram tokenizer that puts </s> after a text."""
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("t5")
    size = max(128, _save_unigram(folder))  # a T5's table has more rows than its tokenizer has tokens
    sizes = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    config = T5Config(vocab_size=size, **sizes, **ends, initializer_factor=2.0)
    return _save_model(folder, T5ForConditionalGeneration, config)


@pytest.fixture(scope="session")
def bart_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BART-like encoder-decoder: learnt positions, a byte-level tokenizer that puts a text between <s> and </s>."""
    from transformers import BartConfig, BartForConditionalGeneration

    folder = tmp_path_factory.mktemp("bart")
    size = _save_bytes(folder, enclosed=True)
    each = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
    sizes = {f"{half}_{name}": size for half in ("encoder", "decoder") for name, size in each.items()}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "decoder_start_token_id": 1}
    config = BartConfig(
        vocab_size=size, d_model=32, **sizes, **ends, max_position_embeddings=64, init_std=0.2, forced_eos_token_id=1
    )
    return _save_model(folder, BartForConditionalGeneration, config)


@pytest.fixture(scope="session", params=["bert", "gpt2", "llama", "t5", "bart"])
def any_folder(request: pytest.FixtureRequest) -> Path:
    """Each of the five bases in turn."""
    folder: Path = request.getfixturevalue(f"{request.param}_folder")
    return folder


@dataclass(frozen=True)
class Minted:
    """A minted prompt: its artifact's folder, its digest, the folder of its base, and the model it was minted from."""

    folder: Path
    digest: str
    base_folder: Path
    tuned: Any


@pytest.fixture(scope="session")
def mint_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Minted]:
    """Mints a prompt on a base at its start: `mint_on(base_folder, method="p-tuning-v2", words=None, **settings)`.

    With `max_new_tokens` it is one that writes.
    """

    def mint_on(
        base_folder: Path,
        method: str = "p-tuning-v2",
        words: tuple[str, str] | None = None,
        template: str = "{text}",
        max_new_tokens: int | None = None,
        **more: Any,
    ) -> Minted:
        from transformers import AutoTokenizer

        from pipelines.digests import digest_file, digest_files
        from pipelines.inference.base import load_base
        from pipelines.prompts.mint import mint
        from pipelines.prompts.verbaliser import word_head
        from pipelines.prompts.writer import writing_head
        from pipelines.recipe import Head, Optimisation, Prompt
        from pipelines.training.job import TrainJob
        from pipelines.training.tuned import linear_head, train_mode, tune

        more = {"layer": 1, **more} if method == "late" else more
        settings = Prompt.model_validate({"method": method, "tokens": 4, "rate": 0.1, "init_scale": 1.0, **more})
        base = load_base(base_folder)
        head = linear_head(base, len(LABELS), seed=5)
        if words is not None:
            head = word_head(base, AutoTokenizer.from_pretrained(base_folder), words)
        if max_new_tokens is not None:
            head = writing_head(base, AutoTokenizer.from_pretrained(base_folder))
        tuned = tune(base, settings, head, seed=5, marked="{prompt}" in template)
        train_mode(tuned, settings)  # minting itself puts the dropout off
        files = {path.name: digest_file(path) for path in base_folder.iterdir()}
        card = {
            "base": {"name": base_folder.name, "digest": digest_files(files), "files": files},
            "data": {"train": "0" * 64, "validation": "1" * 64},
            "recipe": {"name": "tickets", "digest": "2" * 64},
            "template": {"text": template, "max_tokens": 32},
        }
        kind = "generation" if max_new_tokens else "verbaliser" if words else "linear"
        job = TrainJob(
            name="prompt", kind="prompt", settings=settings.model_dump(mode="json"), shared=Optimisation(),
            head=Head.model_validate({"kind": kind, "words": words, "max_new_tokens": max_new_tokens}),
            labels=() if max_new_tokens else LABELS, seed=5, train=Path("-"), validation=Path("-"), card=card,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("prompt")
        return Minted(folder, mint(folder, tuned, settings, base_folder, job), base_folder, tuned)

    return mint_on


@pytest.fixture(scope="session")
def minted(mint_on: Callable[..., Minted], bert_folder: Path) -> Minted:
    """A key/value prompt with a linear head on the encoder; copy its folder before you change anything in it."""
    return mint_on(bert_folder)


def _corpus() -> list[str]:
    return [frame.format(noun) for frame in FRAMES for nouns in NOUNS.values() for noun in nouns]


def _save_wordpiece(folder: Path) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def _save_unigram(folder: Path) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>"]
    words = sorted({f"▁{word}" for text in _corpus() for word in text.split()})
    letters = sorted({letter for word in words for letter in word} - {*words})
    pieces = [*((name, 0.0) for name in special), *((word, -1.0) for word in words), *((one, -9.0) for one in letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def _save_bytes(folder: Path, enclosed: bool = False) -> int:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    names = {"eos_token": "<end>"}
    if enclosed:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0), add_prefix_space=False)
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    trainer = trainers.BpeTrainer(
        vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=list(names.values()),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(_corpus() * 3, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def _save_model(folder: Path, model: Any, config: Any) -> Path:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(11)
        model(config).save_pretrained(folder)
    return folder
