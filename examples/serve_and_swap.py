"""A champion swapped a hundred times under load: no request fails and no answer is mixed, or exit code 1.

    python examples/serve_and_swap.py        # 100 swaps
    python examples/serve_and_swap.py 20

Needs no network and no earlier run, and leaves nothing behind: a toy base, three prompts on it, a store, a ledger, a
registry and a real `promptmint serve` in a folder of their own. The prompts are drawn, not tuned: that changes nothing
about serving them.

An answer is mixed where its probabilities are not those of the version that it names, or where the rows of one prompt
in one request name two versions.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from mlflow_config import registry
from pipelines.digests import digest_file, digest_files
from pipelines.inference.base import load_base
from pipelines.inference.predictor import load_predictor
from pipelines.promotion import ledger
from pipelines.prompts.mint import mint
from pipelines.recipe import Head, Optimisation, Prompt
from pipelines.store.opening import the_ledger, the_store
from pipelines.store.trees import save_tree
from pipelines.training.job import TrainJob
from pipelines.training.tuned import linear_head, tune

LABELS = ("fruit", "boat", "neither")
WORDS = (
    "the", "a", "my", "old", "new", "near", "with", "and", "today", "again",
    "apple", "pear", "plum", "cherry", "sail", "anchor", "mast", "deck", "rudder", "harbour",
)  # fmt: skip
MADE = (("orchard", "p-tuning-v2"), ("orchard", "prompt-tuning"), ("harbour", "prefix-tuning"))  # in order of versions
THREADS = 4
ROWS = 6  # in a request
ALLOWED = 1e-4  # of a probability
PATIENCE_S = 60


def main(swaps: int) -> None:
    """Print what happened to the requests; end with 1 where one failed, one was mixed, or the server ended badly."""
    disable_progress_bar()
    for name in [name for name in os.environ if name.startswith(("PROMPTMINT_", "MLFLOW_TRACKING_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="promptmint-example-") as scratch:
        os.environ |= {"PROMPTMINT_HOME": f"{scratch}/home", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        print("minting three prompts on a toy base", flush=True)
        expected = made(Path(scratch))
        server, url = started(Path(scratch))
        try:
            print(f"serving at {url}; swapping the champion of 'orchard' {swaps} times under load", flush=True)
            load = Load(url, expected)
            start = time.monotonic()
            with load:
                seen = swap(url, swaps)
            seconds = time.monotonic() - start
            server.send_signal(signal.SIGTERM)
            code = server.wait(PATIENCE_S)
        finally:
            server.kill()
            server.wait()
    milliseconds = sorted(load.milliseconds)
    print(f"swaps           {seen}")
    print(f"requests        {load.counts['requests']}")
    print(f"failed          {load.counts['failed']}")
    print(f"mixed answers   {load.counts['mixed']}")
    print(f"by version      {dict(sorted(load.versions.items()))}")
    print(f"milliseconds    median {quantile(milliseconds, 0.5):.0f}, 99 % within {quantile(milliseconds, 0.99):.0f}")
    print(f"seconds         {seconds:.1f}")
    print(f"server's end    exit code {code}")
    if load.counts["failed"] or load.counts["mixed"] or code or seen < swaps or len(load.versions) < len(MADE):
        sys.exit(1)


# Load


@dataclass
class Load:
    """Threads that ask without a pause while the block runs, and check every answer."""

    url: str
    expected: dict[str, dict[str, list[float]]]  # by NAME@VERSION and text
    counts: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> None:
        self.threads = [threading.Thread(target=self.ask, args=(seed,)) for seed in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def ask(self, seed: int) -> None:
        """Send requests of several rows, both prompts in each of them."""
        rng, texts = random.Random(seed), sorted(next(iter(self.expected.values())))
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as http:
            while not self.over.is_set():
                rows = [{"prompt": rng.choice(("orchard", "harbour")), "text": rng.choice(texts)} for _ in range(ROWS)]
                start = time.perf_counter()
                try:
                    answer = http.post("/v1/batch", json={"rows": rows})
                    answers = answer.json()["answers"] if answer.status_code == 200 else None
                except (httpx.HTTPError, ValueError):
                    answers = None
                with self.lock:
                    self.milliseconds.append(1000 * (time.perf_counter() - start))
                    self.note(rows, answers)

    def note(self, rows: list[dict[str, str]], answers: list[dict[str, Any]] | None) -> None:
        """Count a request, and what is wrong with its answers."""
        self.counts["requests"] += 1
        if answers is None or len(answers) != len(rows):
            self.counts["failed"] += 1
            return
        one = {(each["prompt"], each["version"]) for each in answers}
        mixed = len(one) > len({prompt for prompt, _ in one})
        for row, answer in zip(rows, answers, strict=True):
            key = f"{row['prompt']}@{answer['version']}"
            self.versions[key] += 1
            wanted, found = self.expected[key][row["text"]], answer["probabilities"].values()
            mixed |= max(abs(a - b) for a, b in zip(wanted, found, strict=True)) > ALLOWED
        self.counts["mixed"] += mixed


def swap(url: str, swaps: int) -> int:
    """How many promotions the server has followed, each awaited before the next."""
    for number in range(swaps):
        version = 2 - number % 2
        promote("orchard", version)
        deadline = time.monotonic() + PATIENCE_S
        while served(url) != version:
            if time.monotonic() > deadline:
                return number
            time.sleep(0.02)
    return swaps


def served(url: str) -> int:
    """The version of 'orchard' that the server answers with."""
    listed = httpx.get(f"{url}/v1/prompts", timeout=PATIENCE_S).json()["prompts"]
    return int(next(each["version"] for each in listed if each["prompt"] == "orchard@champion"))


def quantile(ordered: list[float], share: float) -> float:
    """The value that so large a share of the values is below."""
    return ordered[int(share * (len(ordered) - 1))]


# Server, registry, prompts


def started(folder: Path, every: str = "0.05") -> tuple[subprocess.Popen[bytes], str]:
    """A `promptmint serve` in a process of its own, and its URL once it listens; its logs are in `serve.log`.

    `every` are the seconds between two looks at the registry.
    """
    command = [sys.executable, "-m", "promptmint.cli", "serve", "orchard", "harbour", "--port", "0", "--every", every]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    log = folder / "serve.log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    while server.poll() is None:
        for line in log.read_text().splitlines():
            if '"event": "listening"' in line:
                return server, json.loads(line)["url"]
        time.sleep(0.1)
    sys.exit(f"The server ended with {server.returncode}:\n{log.read_text()}")


def made(folder: Path) -> dict[str, dict[str, list[float]]]:
    """What every version answers to every text, when it is asked alone: probabilities by NAME@VERSION and text."""
    base = toy_base(folder / "base")
    base_digest = save_tree(the_store(), base)
    rng = random.Random(7)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(2, 12))) for _ in range(40)]
    expected = {}
    for seed, (name, method) in enumerate(MADE):
        artifact = folder / f"{name}-{method}"
        artifact.mkdir()
        digest = mint_drawn(artifact, base, base_digest, method, seed)
        version = register(name, artifact, digest, base_digest, method)
        answers = load_predictor(artifact, base, digest).predict(texts)
        shares = [list(answer.probabilities.values()) for answer in answers]
        expected[f"{name}@{version}"] = dict(zip(texts, shares, strict=True))
        if version == 1:
            promote(name, version)
    return expected


def register(name: str, artifact: Path, digest: str, base_digest: str, method: str) -> int:
    """The version under which a prompt now stands in the registry and in the ledger, as if its gates had passed."""
    (artifact / "provenance.json").write_text("{}")
    record = {
        "run_key": digest, "verdict": "passed", "reason": "drawn", "prompt_digest": digest, "base_digest": base_digest,
        "data_digest": "none", "recipe_digest": "none", "artifact": save_tree(the_store(), artifact),
        "settings": {"prompt": {"method": method}}, "scores": {}, "trained": {},
    }  # fmt: skip
    version = registry.register(name, artifact, record, {})
    ledger.register(
        the_ledger(), name, version, prompt_digest=digest, verdict="passed", run_key=digest, who="example", why="drawn",
    )  # fmt: skip
    return version


def promote(name: str, version: int) -> None:
    """Make a version champion, in the ledger and then in the registry."""
    ledger.promote(the_ledger(), name, version, who="example", why="to see the server follow")
    registry.project(name, version, None)


def mint_drawn(folder: Path, base_folder: Path, base_digest: str, method: str, seed: int) -> str:
    """The digest of a prompt that was never trained, minted with the code that mints trained ones."""
    base = load_base(base_folder)
    settings = Prompt(method=method, tokens=8, init="random", init_scale=1.0, rate=0.1)
    files = {path.name: digest_file(path) for path in base_folder.iterdir()}
    assert digest_files(files) == base_digest
    card = {
        "base": {"name": "toy", "digest": base_digest, "files": files},
        "template": {"text": "{text}", "max_tokens": 32},
    }
    job = TrainJob(
        name="prompt", kind="prompt", settings=settings.model_dump(mode="json"), shared=Optimisation(),
        head=Head(kind="linear"), labels=LABELS, seed=seed, train=Path("-"), validation=Path("-"), card=card,
    )  # fmt: skip
    head = {
        name: 20 * tensor for name, tensor in linear_head(base, len(LABELS), seed).items()
    }  # so that answers differ
    return mint(folder, tune(base, settings, head, seed), settings, base_folder, job)


def toy_base(folder: Path) -> Path:
    """Two layers of BERT with random weights, and a word for a token."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(special) + len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
