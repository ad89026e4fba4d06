"""Whether a tuning that was killed ends as one that was not: the same prompt, bit by bit.

    python benchmarks/resume/run.py --kills 20 [--baselines] [--seed 0]

A tiny encoder with random weights is tuned on made-up rows, once in peace. Then, for each kill, it is tuned in a home
of its own: SIGKILL to the launcher and to all that runs below it, at a random moment in one of N equal parts of the
time; then the same again until it ends. With --baselines LoRA and full fine-tuning are tuned after the prompt, all with
dropout, and may be hit too. The last line counts in how many homes everything is what it is without a kill.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = [consonant + vowel for consonant in "bdfgklmnprst" for vowel in "aeiou"]
LABELS = ("low", "high")


def main() -> None:
    """Tune in peace, then under kills, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", type=Path, help=argparse.SUPPRESS)  # what the processes that are killed are asked for
    arguments = parser.parse_args()
    if arguments.tune:
        tune(arguments.tune, arguments.baselines)
        return
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "peace"
        prepare(prepared)
        command = [sys.executable, __file__, *(["--baselines"] if arguments.baselines else []), "--tune"]
        homes = [Path(shutil.copytree(prepared, Path(folder) / str(number))) for number in range(arguments.kills)]
        wanted, seconds = until_its_end([*command, str(prepared)])
        print(f"in peace: {seconds:.1f} s of tuning, {wanted}")
        identical = 0
        for number, home in enumerate(homes):
            moment = seconds * (number + rng.random()) / arguments.kills
            killed(command=[*command, str(home)], after_s=moment)
            found, _ = until_its_end([*command, str(home)])
            identical += found == wanted
            print(f"killed after {moment:.1f} s: {'identical' if found == wanted else found}", flush=True)
    print(json.dumps({"kills": arguments.kills, "identical": identical}))


def killed(command: list[str], after_s: float) -> None:
    """Start a tuning and kill it, with all that runs below it, some time after it began to train."""
    import psutil

    with subprocess.Popen(command, stdout=subprocess.PIPE) as tuning:
        assert tuning.stdout is not None
        tuning.stdout.readline()
        time.sleep(after_s)
        everyone = [psutil.Process(tuning.pid)] if tuning.poll() is None else []
        for process in everyone:
            everyone += process.children(recursive=True)
        for process in everyone:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def until_its_end(command: list[str]) -> tuple[dict[str, Any], float]:
    """What a tuning that nobody disturbs ends with, and the seconds between its first and its last news."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tuning:
        assert tuning.stdout is not None
        start, end, lines = 0.0, 0.0, []
        for line in tuning.stdout:
            start = start or time.monotonic()
            end = time.monotonic() if '"step"' in line else end  # the last line is no news, but what came out
            lines.append(line)
            if "resumed" in line and not any("resumed" in earlier for earlier in lines[:-1]):
                news = json.loads(line)
                print(f"  {news['job']}: {news['note']}")
    if tuning.returncode != 0:
        raise SystemExit(f"A tuning ended with code {tuning.returncode}.")
    return json.loads(lines[-1]), end - start


def tune(home: Path, baselines: bool) -> None:
    """Tune as `promptmint run` does; every line of progress is printed, and last what came out."""
    from pipelines.bases.pin import pin_base
    from pipelines.recipe import Baselines, BasePin, Data, Full, Lora, Optimisation, Prompt, Recipe, Template
    from pipelines.store.local import LocalStore
    from pipelines.store.trees import save_tree
    from pipelines.tokens.encode import tokenize
    from pipelines.training.compute import Compute
    from pipelines.training.tuning import train_all

    recipe = Recipe(
        name="resume",
        base=BasePin(name="tiny/encoder", sources=(f"file://{home.parent / 'peace/base'}",)),
        data=Data(path="rows", labels=LABELS),
        template=Template(max_tokens=32),
        training=Optimisation(epochs=5, batch_size=16),
        prompt=Prompt(method="p-tuning-v2", tokens=8, rate=0.05, dropout=0.1),
        baselines=Baselines(lora=Lora(rate=1e-3, dropout=0.1), full=Full(rate=1e-4)) if baselines else Baselines(),
    )
    store = LocalStore(home / "store")
    base = pin_base(store, recipe.base, home, home / "downloads")
    shards = {}
    for split in ("train", "validation"):
        tree = save_tree(store, home / "rows" / split)
        folder = home / "base"
        shards[split] = tokenize(store, tree, folder, base.digest, recipe.template, LABELS, home / "cache")["tree"]
    results = train_all(
        store, recipe, base, home / "base", shards, Compute(device="cpu", threads=1, checkpoint_s=0.2), home / "cache",
        on_news=lambda news: print(json.dumps(news), flush=True), on_result=lambda name, reused: None,
    )  # fmt: skip
    if left := list((home / "work").iterdir()):
        raise SystemExit(f"Left behind: {left}")
    curves = {name: [each["tree"], each["kept_epoch"], each["curve"][-1]] for name, each in results.items()}
    print(json.dumps(curves), flush=True)


def prepare(home: Path) -> None:
    """A tiny base and rows for it, in folders below `home`."""
    import pandas as pd
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(home / "base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=len(words), **sizes, max_position_embeddings=64)).save_pretrained(home / "base")
    rng = random.Random(0)
    for split, count in (("train", 1600), ("validation", 100)):
        rows = []
        for number in range(count):
            half = WORDS[:35] if number % 2 == 0 else WORDS[25:]  # some words say nothing
            text = " ".join(rng.choices(half, k=rng.randint(4, 16)))
            rows.append({"id": f"{split}-{number}", "text": text, "label": LABELS[number % 2]})
        (home / "rows" / split).mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(home / "rows" / split / "examples.parquet")


if __name__ == "__main__":
    main()
