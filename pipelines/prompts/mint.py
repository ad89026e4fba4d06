"""Minting: a tuned prompt folded into its artifact, with a proof of what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from pipelines.inference.forward import padded
from pipelines.inference.generation import first_tokens, said_logits
from pipelines.prompts.artifact import Proof, write_prompt, write_proof
from pipelines.prompts.methods import PRESETS
from pipelines.prompts.parameterisation import Placed
from pipelines.recipe import Prompt, Template
from pipelines.tokens.template import encode
from pipelines.training.job import TrainJob
from pipelines.training.once import above_what_is_kept
from pipelines.training.tuned import Tuned

PROOF_TOKENS = 8  # of a written text
PROOF_LENGTHS = (1, 2, 4, 8, 12, 16, 24, 48)  # words
PROOF_TOLERANCE = 1e-3  # of a logit: fp32 kernels of other machines stay well below it, a wrong base does not


def mint(folder: Path, tuned: Tuned, settings: Prompt, base_folder: Path, job: TrainJob) -> str:
    """The digest of the artifact written to `folder`.

    Args:
        folder: empty.
        tuned: the base with the trained prompt; put into eval mode, so that what is folded has no dropout.
        settings: what was trained.
        base_folder: where the tokenizer lies.
        job: what was asked for; its `card` names base, data and recipe by digest.
    """
    assert tuned.prompt is not None
    tuned.eval()
    tensors = {name: tensor.detach() for name, tensor in tuned.prompt().items()}
    head = {name: tensor.detach() for name, tensor in tuned.head_tensors().items()}
    card = {
        **job.card,
        "method": {"name": settings.method, **_described(tuned, settings)},
        "settings": {**_settings(tuned, settings), "training": job.shared.model_dump(mode="json")},
        "head": {**job.head.model_dump(mode="json"), "pooling": _pooling(tuned, job)},
        "labels": job.labels,
        "seed": job.seed,
    }
    digest = write_prompt(folder, card, tensors, head)
    write_proof(folder, _proof(tuned, base_folder, Template(**job.card["template"]), digest, job.head.max_new_tokens))
    return digest


def _settings(tuned: Tuned, settings: Prompt) -> dict[str, Any]:
    """What was asked for; how exactly activations are kept is said where that changes the result."""
    kept = {"activations": settings.activations} if above_what_is_kept(tuned) is not None else {}
    return {**settings.model_dump(mode="json"), **kept}


def _described(tuned: Tuned, settings: Prompt) -> dict[str, str]:
    """The method's axes, the place as the template has it; of an encoder-decoder also which half reads the prompt."""
    described = PRESETS[settings.method].described
    match tuned.prompt:
        case Placed(name="in_decoder"):
            return {**described, "place": "before what the decoder says"}
        case Placed(name="inserted"):
            described = {**described, "place": "at the template's {prompt}"}
    return described if tuned.base.seq2seq is None else {**described, "place": f"{described['place']}, in the encoder"}


def _pooling(tuned: Tuned, job: TrainJob) -> str:
    """What the head reads: the mean over the text, its last position, or the decoder's positions."""
    if job.head.kind != "linear":
        return "last" if tuned.base.seq2seq is None else "decoder"
    return tuned.base.pooling


@torch.no_grad()
def _proof(tuned: Tuned, base_folder: Path, template: Template, digest: str, most: int | None) -> Proof:
    """What the prompt answers to words drawn from the base's own vocabulary; of a text of `most` tokens how it begins.

    Never to training examples: an artifact travels further than the data may.
    """
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    vocabulary = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    rng = np.random.default_rng(int(digest[:16], 16))
    texts = [" ".join(rng.choice(vocabulary, length)) for length in PROOF_LENGTHS]
    pairs = texts[::-1] if template.of_pairs else None
    rows = [encoded.input_ids for encoded in encode(tokenizer, template, texts, pairs)]
    if most is None:
        return Proof(texts, _one_by_one(tuned, rows), PROOF_TOLERANCE, pairs)
    prompt, head = tuned.folded(), tuned.head_tensors()
    said = torch.cat([first_tokens(tuned.base, row, prompt, head, min(most, PROOF_TOKENS)) for row in rows])
    alone = [said_logits(tuned.base, [row], prompt, head, own[None]) for row, own in zip(rows, said, strict=True)]
    return Proof(texts, torch.cat(alone), PROOF_TOLERANCE, pairs, said)


def _one_by_one(tuned: Tuned, rows: list[list[int]]) -> Tensor:
    """Logits [N, C] of rows answered alone, so that a replay in one batch also shows that padding changes nothing."""
    return torch.cat([tuned(*(part.to(tuned.base.device) for part in padded([row]))).float().cpu() for row in rows])
