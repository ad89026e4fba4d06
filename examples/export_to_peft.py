"""Soft prompts minted here, exported, and answered by plain PEFT: the same logits, or exit code 1.

    python examples/export_to_peft.py               # models/tiny_llama where the checkout has it, else a toy decoder
    python examples/export_to_peft.py BASE_FOLDER   # any decoder like GPT-2, Llama or Qwen

Needs no network, no server and no earlier run. The prompts are drawn, not tuned: that changes nothing about the export.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from pipelines.digests import digest_file, digest_files
from pipelines.inference.base import load_base
from pipelines.inference.predictor import load_predictor
from pipelines.interchange.export import export
from pipelines.prompts.mint import mint
from pipelines.prompts.verbaliser import word_head
from pipelines.recipe import Head, Optimisation, Prompt
from pipelines.training.job import TrainJob
from pipelines.training.tuned import linear_head, tune

TINY_LLAMA = Path(__file__).resolve().parents[1] / "models" / "tiny_llama"
ALLOWED = 1e-4  # of a logit
LABELS = ("bad", "good")
TEXTS = ("a good film", "the story was bad and the music was worse", "nothing new here but it was good fun to watch")


def main(base_folder: Path | None) -> None:
    """Print a line per kind of prompt and head; end with 1 where plain PEFT answers differently."""
    disable_progress_bar()
    set_verbosity_error()
    with tempfile.TemporaryDirectory(prefix="promptmint-example-") as scratch:
        if base_folder is None:
            base_folder = TINY_LLAMA if TINY_LLAMA.is_dir() else toy_decoder(Path(scratch) / "base")
        print(f"base: {base_folder}")
        differences = []
        for method in ("prompt-tuning", "p-tuning", "p-tuning-v2", "prefix-tuning"):
            for words in (LABELS, None):
                name = f"{method}, {'label words' if words else 'linear head'}"
                artifact, exported = Path(scratch) / name, Path(scratch) / f"{name} for PEFT"
                artifact.mkdir()
                mint_drawn(artifact, base_folder, method, words)
                export(artifact, base_folder, "peft", exported)
                ours = load_predictor(artifact, base_folder).logits(TEXTS)
                differences.append(float((ours - plain_peft(exported, base_folder, words is not None)).abs().max()))
                print(f"{name:<28} largest difference of a logit {differences[-1]:.1e}")
    if not max(differences) <= ALLOWED:
        sys.exit(1)


@torch.no_grad()
def plain_peft(exported: Path, base_folder: Path, words_scored: bool) -> Tensor:
    """Class logits [n, C] of `TEXTS`, from transformers and PEFT alone."""
    auto: Any = AutoModelForCausalLM if words_scored else AutoModel
    model = PeftModel.from_pretrained(auto.from_pretrained(base_folder, dtype=torch.float32), str(exported)).eval()
    head, tokenizer = load_file(exported / "head.safetensors"), AutoTokenizer.from_pretrained(base_folder)
    logits = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        if words_scored:
            logits.append(out.logits[0, -1, head["word_ids"]])
        else:
            logits.append(head["weight"] @ out.last_hidden_state[0, -1] + head["bias"])
    return torch.stack(logits)


def mint_drawn(folder: Path, base_folder: Path, method: str, words: tuple[str, ...] | None) -> None:
    """Mint a prompt that starts in the vocabulary and was never trained, with the code that mints trained ones."""
    base = load_base(base_folder)
    head = linear_head(base, len(LABELS), seed=1)
    if words is not None:
        head = word_head(base, AutoTokenizer.from_pretrained(base_folder), words)
    settings = Prompt(method=method, tokens=8, init="vocabulary", rate=0.1)
    files = {
        path.relative_to(base_folder).as_posix(): digest_file(path) for path in base_folder.rglob("*") if path.is_file()
    }
    card = {
        "base": {"name": base_folder.name, "digest": digest_files(files), "files": files},
        "template": {"text": "{text}", "max_tokens": 64},
    }
    job = TrainJob(
        name="prompt", kind="prompt", settings=settings.model_dump(mode="json"), shared=Optimisation(),
        head=Head(kind="verbaliser" if words else "linear", words=words), labels=LABELS, seed=1,
        train=Path("-"), validation=Path("-"), card=card,
    )  # fmt: skip
    mint(folder, tune(base, settings, head, seed=1).eval(), settings, base_folder, job)


def toy_decoder(folder: Path) -> Path:
    """A Llama-like decoder with random weights, 4 heads that share 2 key/value heads, and a word for a token."""
    words = sorted({word for text in (*TEXTS, *LABELS) for word in text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(["?", *words])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(words) + 1, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
