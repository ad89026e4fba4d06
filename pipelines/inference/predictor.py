"""One prompt on its base, ready to answer texts.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ..errors import ArtifactError, DataError
from ..prompts.artifact import Proof, SoftPrompt, check_base, read_prompt, read_proof
from ..recipe import Template
from ..settings import cache_folder
from ..store.opening import open_store
from ..store.trees import load_checked_tree
from .base import Base, load_base
from .forward import read_once
from .generation import longest, said_logits, texts_written
from .mixed import BATCH_ROWS, Text, logits, token_ids


@dataclass(frozen=True)
class Answer:
    """The label a prompt gives a text, how sure it is, and what it thinks of the others."""

    label: str
    probability: float
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Predictor:
    """A prompt, the frozen base it belongs to, and the base's tokenizer."""

    prompt: SoftPrompt
    base: Base
    tokenizer: Any
    proven_within: float = math.nan  # the largest difference of a logit when the proof was replayed

    @property
    def writes(self) -> bool:
        """Whether the prompt answers with texts: `generate`, and not `predict`."""
        return self.prompt.writes

    @property
    def of_pairs(self) -> bool:
        """Whether the prompt is asked with two texts per example."""
        return Template(**self.prompt.card["template"]).of_pairs

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Answer]:
        """An answer per text, or per text and its pair: the second texts for a prompt that was tuned on two.

        Raises:
            DataError: a text has no tokens; or the prompt wants second texts and there are none, or the other way
                round; or it writes texts.
        """
        labels = self.prompt.labels
        rows = self.logits(texts, pairs).softmax(dim=1).tolist()
        return [answer(labels, row) for row in rows]

    def generate(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[str]:
        """What a prompt that was tuned to write (`head.kind = "generation"`) answers to each text.

        Raises:
            DataError: as for `predict`; or the prompt answers with labels.
        """
        most = longest(self.prompt)
        if most is None:
            raise DataError("This prompt was tuned for labels and writes no texts: ask it to predict.")
        rows, prompt = self._rows(texts, pairs), self.prompt
        return texts_written(self.base, self.tokenizer, rows, prompt.tensors, prompt.head, most, BATCH_ROWS)

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        """Class logits [n, C] in float32."""
        rows = logits(self.base, self.tokenizer, self._asked(texts, pairs))
        return torch.stack(rows) if rows else torch.empty(0, len(self.prompt.labels))

    def replay(self, proof: Proof) -> float:
        """The largest difference of a logit from the proof.

        Raises:
            ArtifactError: it is larger than the proof tolerates; this machine does not answer as the mint did.
        """
        if proof.said is None:
            given = self.logits(proof.texts, proof.pairs)
        else:
            rows = self._rows(proof.texts, proof.pairs)
            given = said_logits(self.base, rows, self.prompt.tensors, self.prompt.head, proof.said)
        difference = float((given - proof.logits).abs().max())
        if not difference <= proof.tolerance:
            raise ArtifactError(
                f"The proof failed: a logit differs by {difference:.2e}, more than {proof.tolerance:.0e}, from what "
                f"prompt {self.prompt.digest} gave when it was minted. Compare the versions of torch and transformers "
                "with those in provenance.json."
            )
        return difference

    def _rows(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[list[int]]:
        """Texts in the prompt's template, as token ids."""
        return token_ids(self.tokenizer, self._asked(texts, pairs))

    def _asked(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[tuple[SoftPrompt, Text]]:
        if pairs is not None and len(pairs) != len(texts):
            raise DataError(f"There are {len(texts)} texts and {len(pairs)} second ones. Give one of each per example.")
        asked: Sequence[Text] = texts if pairs is None else list(zip(texts, pairs, strict=True))
        return [(self.prompt, text) for text in asked]


def load_predictor(
    folder: Path, base_folder: Path, expected_digest: str | None = None, device: str = "cpu"
) -> Predictor:
    """The prompt in an artifact's folder on the base in another, everything digested and the proof replayed.

    Raises:
        ArtifactError: the prompt is damaged, is another one than expected, or does not answer as it was proven to.
        BaseModelError: the base is not the exact one that the prompt was minted on.
    """
    prompt = read_prompt(folder, expected_digest)
    check_base(prompt.card, base_folder)
    base = load_base(base_folder, device)
    predictor = Predictor(ready(prompt, base), base, AutoTokenizer.from_pretrained(base_folder))
    return replace(predictor, proven_within=predictor.replay(read_proof(folder)))


@torch.no_grad()
def ready(prompt: SoftPrompt, base: Base) -> SoftPrompt:
    """The prompt in memory beside its base, as the keys and values that a decoder makes of it."""
    head = {name: tensor.to(base.device, copy=True) for name, tensor in prompt.head.items()}  # not mapped from a file
    tensors = {name: tensor.to(base.device, copy=True) for name, tensor in prompt.tensors.items()}
    return replace(prompt, tensors=dict(read_once(base, tensors)), head=head)


def base_from_store(folder: Path, store_uri: str) -> Path:
    """A local copy of the base that the prompt in `folder` belongs to, fetched from a store where it is not cached.

    Raises:
        StoreError: the store cannot be reached, or holds no such base.
    """
    digest = read_prompt(folder).card["base"]["digest"]
    return load_checked_tree(open_store(store_uri), digest, cache_folder())


def answer(labels: Sequence[str], row: Sequence[float]) -> Answer:
    """The answer that the probabilities of the classes amount to."""
    best = max(range(len(row)), key=row.__getitem__)
    return Answer(labels[best], row[best], dict(zip(labels, row, strict=True)))
