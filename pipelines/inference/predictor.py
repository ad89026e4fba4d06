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

from ..errors import ArtifactError
from ..prompts.artifact import Proof, SoftPrompt, check_base, read_prompt, read_proof
from ..recipe import Template
from ..settings import cache_folder
from ..store.store import open_store
from ..store.trees import load_checked_tree
from ..tokens.template import encode
from .forward import Base, class_scores, hidden_states, load_base, padded, pooled
from .label_words import word_scores

BATCH_ROWS = 64


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

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Answer]:
        """An answer per text, or per text and its pair: the second texts of a prompt that was tuned on two.

        Raises:
            DataError: the prompt wants second texts and there are none, or the other way round.
        """
        labels = self.prompt.labels
        rows = self.logits(texts, pairs).softmax(dim=1).tolist()
        return [_answer(labels, row) for row in rows]

    @torch.no_grad()
    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tensor:
        """Class logits [n, C] in float32, computed longest row first so that little is padded."""
        template = Template(**self.prompt.card["template"])
        rows = [row.input_ids for row in encode(self.tokenizer, template, texts, pairs)]
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
        logits = torch.empty(len(rows), len(self.prompt.labels))
        for start in range(0, len(order), BATCH_ROWS):
            chosen = order[start : start + BATCH_ROWS]
            ids, mask = (part.to(self.base.device) for part in padded([rows[index] for index in chosen]))
            logits[torch.tensor(chosen)] = self._scores(ids, mask).float().cpu()
        return logits

    def _scores(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, C] of token ids and their mask, each [B, T]."""
        tensors, head = self.prompt.tensors, self.prompt.head
        if "word_ids" in head:
            return word_scores(self.base, ids, mask, tensors, head)
        states = hidden_states(self.base, ids, mask, tensors)
        return class_scores(self.base, pooled(states, mask, self.prompt.card["head"]["pooling"]), head)

    def replay(self, proof: Proof) -> float:
        """The largest difference of a logit from the proof.

        Raises:
            ArtifactError: it is larger than the proof tolerates; this machine does not answer as the mint did.
        """
        difference = float((self.logits(proof.texts, proof.pairs) - proof.logits).abs().max())
        if not difference <= proof.tolerance:
            raise ArtifactError(
                f"The proof failed: a logit differs by {difference:.2e}, more than {proof.tolerance:.0e}, from what "
                f"prompt {self.prompt.digest} gave when it was minted. Compare the versions of torch and transformers "
                "with those in provenance.json."
            )
        return difference


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
    on_device = SoftPrompt(
        prompt.card,
        {name: tensor.to(device) for name, tensor in prompt.tensors.items()},
        {name: tensor.to(device) for name, tensor in prompt.head.items()},
        prompt.digest,
    )
    predictor = Predictor(on_device, base, AutoTokenizer.from_pretrained(base_folder))
    return replace(predictor, proven_within=predictor.replay(read_proof(folder)))


def base_from_store(folder: Path, store_uri: str) -> Path:
    """A local copy of the base that the prompt in `folder` belongs to, fetched from a store where it is not cached.

    Raises:
        StoreError: the store cannot be reached, or holds no such base.
    """
    digest = read_prompt(folder).card["base"]["digest"]
    return load_checked_tree(open_store(store_uri), digest, cache_folder())


def _answer(labels: Sequence[str], row: Sequence[float]) -> Answer:
    best = max(range(len(row)), key=row.__getitem__)
    return Answer(labels[best], row[best], dict(zip(labels, row, strict=True)))
