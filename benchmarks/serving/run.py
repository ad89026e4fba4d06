"""Many prompts served over one base: against one prompt alone, PEFT's adapter switching, and one model per tune.

    python benchmarks/serving/run.py [--quick] [--base FOLDER] [--save]

64 prompts of 20 tokens are minted on a decoder, drawn and not tuned: that changes nothing about their cost. Each round
answers 64 texts of 32 tokens in turn as

    mixed       one call of the engine, a prompt per text
    single      one call of the engine, all texts for one prompt
    switching   PEFT, the adapters that promptmint exports: set_adapter before each text, because one batch of PEFT has
                one prompt; the base without its vocabulary head, and the linear head outside of it, as for us
    per tune    a model of its own per text, a copy of the base with a head and no prompt

for prompts among the input embeddings and for keys and values; tokenising counts everywhere. All give the same answers,
or the run ends. A ratio is the median over the rounds, and of the two kinds of prompts the worse one. Then key/value
prompts are added to an engine of its own, from 64 folders under as many names as it takes.

--quick makes fewer rounds and adds 200 prompts instead of 1,000 (and says 1,000 / 200 of the bytes); --save keeps every
round, with versions and machine, in results/. The last line is one JSON object:

    mixed_over_single       throughput of mixed over that of single
    over_peft_switching     throughput of mixed over that of switching
    bytes_per_1000_prompts  resident memory that 1,000 added key/value prompts take
    memory_ratio_64_tunes   tensor bytes of the base and 64 key/value prompts over those of 64 models
    add_prompt_ms           median time from a folder to a prompt that is proven and ready, in an idle engine
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from pipelines.digests import digest_file, digest_files, folder_files
from pipelines.inference.base import Base, load_base
from pipelines.inference.engine import Engine
from pipelines.inference.forward import class_scores, hidden_states, padded, pooled
from pipelines.inference.shelf import size_bytes
from pipelines.interchange.answer import Exported, class_logits
from pipelines.interchange.peft import write_peft
from pipelines.prompts.artifact import read_prompt
from pipelines.prompts.mint import mint
from pipelines.recipe import Head, Optimisation, Prompt, Template
from pipelines.tokens.template import encode
from pipelines.training.job import TrainJob
from pipelines.training.tuned import linear_head, tune

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kept import another, keep

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
PROMPTS, TOKENS, LENGTH = 64, 20, 32  # P = 20 before T = 32
METHODS = ("prompt-tuning", "p-tuning-v2")
LABELS = ["bad", "good"]
ALLOWED = 1e-4  # of a probability

Answering = Callable[[], Tensor]  # the probabilities [64, 2] of the texts


def main() -> None:
    """Measure, print, and keep what was measured if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("../shared/models/tiny_llama"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    disable_progress_bar()
    set_verbosity_error()
    warnings.filterwarnings("ignore")  # PEFT calls what transformers is about to drop
    base_folder = (ROOT / arguments.base).resolve()  # an absolute path stays what it is
    rounds, added = (3, 200) if arguments.quick else (15, 1000)
    with tempfile.TemporaryDirectory(prefix="promptmint-serving-") as scratch:
        print(f"minting {PROMPTS} prompts of either kind on {base_folder.name}", flush=True)
        folders = {method: minted(Path(scratch) / method, base_folder, method) for method in METHODS}
        print(f"adding {added} prompts", flush=True)
        memory = added_prompts(base_folder, folders["p-tuning-v2"], added)
        seconds = {method: timed(base_folder, folders[method], rounds) for method in METHODS}
    ratios = {
        f"mixed_over_{name}": {method: median_ratio(times[name], times["mixed"]) for method, times in seconds.items()}
        for name in ("single", "switching", "per tune")
    }
    for name, found in ratios.items():
        print(f"{name:<24}" + ", ".join(f"{method} {ratio:.2f}" for method, ratio in found.items()))
    result = {
        "mixed_over_single": min(ratios["mixed_over_single"].values()),
        "over_peft_switching": min(ratios["mixed_over_switching"].values()),
        "bytes_per_1000_prompts": memory["bytes_per_1000_prompts"],
        "memory_ratio_64_tunes": memory["memory_ratio_64_tunes"],
        "add_prompt_ms": statistics.median(memory["add_prompt_ms"]),
    }
    if arguments.save:
        measured = {"ratios": ratios, "seconds": seconds, "memory": memory, "base": base_folder.name}
        path = keep(another(RESULTS, "serving"), {"result": result, **measured})
        print(f"kept in {path.relative_to(ROOT)}")
    print(json.dumps(result))


# What is measured.


def timed(base_folder: Path, folders: Sequence[Path], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each contender, who take turns at going first."""
    engine = Engine(base_folder)
    names = [folder.name for folder in folders]
    for name, folder in zip(names, folders, strict=True):
        engine.add(name, folder)
    texts = drawn_texts(engine.tokenizer)
    contenders: dict[str, Answering] = {
        "mixed": lambda: probabilities(engine, list(zip(names, texts, strict=True))),
        "single": lambda: probabilities(engine, [(names[0], text) for text in texts]),
        "switching": switching(base_folder, folders, engine.tokenizer, texts),
        "per tune": per_tune(engine.base, folders, engine.tokenizer, texts),
    }
    warm = {name: answer() for name, answer in contenders.items()}
    if not float((warm["mixed"] - warm["switching"]).abs().max()) <= ALLOWED:
        raise SystemExit("PEFT and the engine answer differently: they are not measured at the same work.")
    print(f"answering {rounds} times each with {folders[0].parent.name}", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for number in range(rounds):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def probabilities(engine: Engine, requests: Sequence[tuple[str, str]]) -> Tensor:
    """What an engine answers, as a tensor [n, C]."""
    return torch.tensor([list(answer.probabilities.values()) for answer in engine.predict(requests)])


def switching(base_folder: Path, folders: Sequence[Path], tokenizer: Any, texts: Sequence[str]) -> Answering:
    """PEFT with one adapter per prompt over one base, switched before each text."""
    model: Any = AutoModel.from_pretrained(base_folder, dtype=torch.float32)
    exports = []
    for folder in folders:
        prompt, adapter = read_prompt(folder), folder.with_name(f"{folder.name}-peft")
        adapter.mkdir()
        write_peft(prompt, base_folder, adapter)
        if exports:
            model.load_adapter(str(adapter), folder.name)
        else:
            model = PeftModel.from_pretrained(model, str(adapter), folder.name).eval()
        card = json.loads((adapter / "promptmint.json").read_bytes())
        exports.append((folder.name, Exported(card, model, prompt.head, None)))

    def answer() -> Tensor:
        rows = []
        for (name, exported), text in zip(exports, texts, strict=True):
            model.set_adapter(name)
            rows.append(class_logits(exported, *padded([token_ids(tokenizer, text)])))
        return torch.cat(rows).softmax(1)

    return answer


def per_tune(base: Base, folders: Sequence[Path], tokenizer: Any, texts: Sequence[str]) -> Answering:
    """A copy of the base per tune, each with its head."""
    tunes = [(copy.deepcopy(base), read_prompt(folder).head) for folder in folders]

    @torch.no_grad()
    def answer() -> Tensor:
        rows = []
        for (model, head), text in zip(tunes, texts, strict=True):
            ids, mask = padded([token_ids(tokenizer, text)])
            rows.append(class_scores(model, pooled(hidden_states(model, ids, mask, {}), mask, "last"), head))
        return torch.cat(rows).softmax(1)

    return answer


def added_prompts(base_folder: Path, folders: Sequence[Path], count: int) -> dict[str, Any]:
    """Resident memory, time and tensor bytes of prompts added to an engine of their own."""
    engine = Engine(base_folder)
    for number in range(8):  # buffers that stay, and the digests of the base
        engine.add(f"first {number}", folders[number])
    process, milliseconds = psutil.Process(), []
    gc.collect()
    before = process.memory_info().rss
    for number in range(count):
        start = time.perf_counter()
        engine.add(f"prompt {number}", folders[number % len(folders)])
        milliseconds.append(1000 * (time.perf_counter() - start))
    gc.collect()
    grown = process.memory_info().rss - before
    weights = {parameter.data_ptr(): parameter.nbytes for parameter in engine.base.backbone.parameters()}
    base_bytes = sum(weights.values())
    prompt_bytes = sum(size_bytes(engine.prompts()[f"prompt {number}"]) for number in range(PROMPTS))
    return {
        "added": count,
        "bytes_per_1000_prompts": grown * 1000 // count,
        "add_prompt_ms": milliseconds,
        "base_bytes": base_bytes,
        "prompt_bytes_of_64": prompt_bytes,
        "memory_ratio_64_tunes": (base_bytes + prompt_bytes) / (PROMPTS * base_bytes),
    }


# What it is measured on.


def minted(target: Path, base_folder: Path, method: str) -> list[Path]:
    """Folders of 64 artifacts, each from a seed of its own."""
    base = load_base(base_folder)
    files = {path.relative_to(base_folder).as_posix(): digest_file(path) for path in folder_files(base_folder)}
    settings = Prompt(method=method, tokens=TOKENS, init="vocabulary", rate=0.1)
    folders = []
    for seed in range(PROMPTS):
        folder = target / f"tune-{seed}"
        folder.mkdir(parents=True)
        card = {
            "base": {"name": base_folder.name, "digest": digest_files(files), "files": files},
            "template": {"text": "{text}", "max_tokens": LENGTH},
        }
        job = TrainJob(
            name="prompt", kind="prompt", settings=settings.model_dump(mode="json"), shared=Optimisation(),
            head=Head(), labels=LABELS, seed=seed, train=Path("-"), validation=Path("-"), card=card,
        )  # fmt: skip
        head = {name: 10 * tensor for name, tensor in linear_head(base, len(LABELS), seed).items()}
        mint(folder, tune(base, settings, head, seed), settings, base_folder, job)
        folders.append(folder)
    return folders


def drawn_texts(tokenizer: Any) -> list[str]:
    """64 texts of more than 32 tokens, which the template cuts to 32."""
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    rng = random.Random(0)
    texts = [" ".join(rng.choices(words, k=LENGTH + 4)) for _ in range(PROMPTS)]
    if any(len(token_ids(tokenizer, text)) != LENGTH for text in texts):
        raise SystemExit(f"A text has not {LENGTH} tokens: this base's words are shorter than expected.")
    return texts


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """One text as a prompt's template has it."""
    (row,) = encode(tokenizer, Template(max_tokens=LENGTH), [text])
    return row.input_ids


# What is kept.


def median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """The median over the rounds of their seconds over ours."""
    return statistics.median(their / our for their, our in zip(theirs, ours, strict=True))


if __name__ == "__main__":
    main()
