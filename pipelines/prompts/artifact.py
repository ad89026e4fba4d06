"""The prompt artifact, format 1: a folder of some kilobytes that says all about one soft prompt, and no pickle.

    prompt.json  prompt.safetensors   the identity: what the prompt is and belongs to; its digest covers these two
    proof.json   proof.safetensors    inputs with the logits they must give, replayed wherever the prompt is loaded
    provenance.json                   how it came to be: scores, gates, versions; not part of the identity

`prompt.safetensors` holds the folded tensors that inference needs: `embeddings` [P, d], `inserted` [P, d] where the
template says where they stand, `in_decoder` [P, d] where the decoder of an encoder-decoder reads them, or `keys` and
`values` [L, H_kv, P, d_h]; and the head's `head.weight` [C, d] and `head.bias` [C], or `head.word_ids` [C], [C, W]
where label words have several tokens (-1 after shorter ones), with `head.opening` [O] on an encoder-decoder;
or, of a prompt that writes texts, `head.opening` and `head.ends` [E]: `inference/writing.py`.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..digests import canonical_json, digest_file, digest_files
from ..errors import ArtifactError, BaseModelError

FORMAT = 1
IDENTITY = ("prompt.json", "prompt.safetensors")
PROOF = "proof.safetensors"


@dataclass(frozen=True)
class SoftPrompt:
    """A prompt as read from its artifact: `card` is prompt.json, the tensors are the folded prompt and its head."""

    card: dict[str, Any]
    tensors: dict[str, Tensor]
    head: dict[str, Tensor]
    digest: str

    @property
    def writes(self) -> bool:
        """Whether it answers with a text, and not with a label."""
        return "max_new_tokens" in self.card["head"]

    @property
    def labels(self) -> list[str]:
        """What the classes are called, in the order of the logits; none where it writes."""
        labels: list[str] = self.card["labels"]
        return labels


@dataclass(frozen=True)
class Proof:
    """Inputs and the logits [N, C] they gave when the prompt was minted, to within `tolerance`.

    Of a prompt that writes texts C counts the tokens of `said`: the logit of each, given those before it.
    """

    texts: list[str]
    logits: Tensor
    tolerance: float
    pairs: list[str] | None = None  # the second text of each, where the prompt reads two
    said: Tensor | None = None  # [N, C] the tokens that it wrote first, where it writes


def prompt_digest(folder: Path) -> str:
    """The digest of the artifact's identity: prompt.json and prompt.safetensors, nothing else."""
    return digest_files({name: digest_file(folder / name) for name in IDENTITY})


def write_prompt(
    folder: Path, card: Mapping[str, Any], tensors: Mapping[str, Tensor], head: Mapping[str, Tensor]
) -> str:
    """The digest of the identity written to `folder`."""
    everything = {**tensors, **{f"head.{name}": tensor for name, tensor in head.items()}}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in everything.items()}, folder / IDENTITY[1])
    shapes = {name: [str(tensor.dtype).removeprefix("torch."), *tensor.shape] for name, tensor in everything.items()}
    _write_json(folder / IDENTITY[0], {"format": FORMAT, **card, "tensors": shapes})
    return prompt_digest(folder)


def write_proof(folder: Path, proof: Proof) -> None:
    """Put the proof beside the identity it proves."""
    tensors = {"logits": proof.logits} | ({} if proof.said is None else {"said": proof.said})
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / PROOF)
    second = {} if proof.pairs is None else {"pairs": proof.pairs}
    _write_json(folder / "proof.json", {"texts": proof.texts, **second, "tolerance": proof.tolerance})


def read_prompt(folder: Path, expected_digest: str | None = None) -> SoftPrompt:
    """The prompt in an artifact's folder, checked against what it says of itself.

    Raises:
        ArtifactError: a file is missing, cut short or changed, or the format is newer than this code.
    """
    card = _read_json(folder / IDENTITY[0])
    if card.get("format") != FORMAT:
        raise ArtifactError(
            f"The prompt in {str(folder)!r} has format {card.get('format')!r}; this version reads format {FORMAT}. "
            "Install the promptmint that minted it, or a newer one."
        )
    stored = _read_tensors(folder / IDENTITY[1])
    found = {name: [str(tensor.dtype).removeprefix("torch."), *tensor.shape] for name, tensor in stored.items()}
    if found != card.get("tensors"):
        raise ArtifactError(
            f"The tensors in {str(folder)!r} are {found!r}, but prompt.json names {card.get('tensors')!r}. It was "
            "changed after it was minted: pull it again."
        )
    digest = prompt_digest(folder)
    if expected_digest is not None and digest != expected_digest:
        raise ArtifactError(
            f"The prompt in {str(folder)!r} has digest {digest}, wanted {expected_digest}. It was changed after it was "
            "minted: pull it again."
        )
    head = {name.removeprefix("head."): tensor for name, tensor in stored.items() if name.startswith("head.")}
    tensors = {name: tensor for name, tensor in stored.items() if not name.startswith("head.")}
    return SoftPrompt(card, tensors, head, digest)


def read_proof(folder: Path) -> Proof:
    """The proof beside a prompt. Raises `ArtifactError` where it is missing or damaged."""
    record, stored = _read_json(folder / "proof.json"), _read_tensors(folder / PROOF)
    try:
        proof = Proof(
            record["texts"], stored["logits"], record["tolerance"], record.get("pairs"), stored.get("said")
        )  # fmt: skip
    except KeyError as error:
        raise ArtifactError(f"The proof in {str(folder)!r} lacks {error}. Pull the prompt again.") from error
    if not 0 < len(proof.texts) == len(proof.logits):
        raise ArtifactError(
            f"The proof in {str(folder)!r} has {len(proof.texts)} texts and logits for {len(proof.logits)}: it proves "
            "nothing. Pull the prompt again."
        )
    return proof


def check_base(card: Mapping[str, Any], base_folder: Path, digest_of: Callable[[Path], str] = digest_file) -> None:
    """Let a base pass only if every byte of it is the one this prompt was minted on.

    `digest_of` may remember the digest of a file that it has read before.

    Raises:
        BaseModelError: a file is missing or differs; the message names both digests.
    """
    wanted: dict[str, str] = card["base"]["files"]
    named = f"the base {card['base']['name']!r} in {str(base_folder)!r}"
    for name, digest in wanted.items():
        path = base_folder / name
        actual = digest_of(path) if path.is_file() else "(no such file)"
        if actual != digest:
            raise BaseModelError(
                f"This prompt was minted on another base than {named}: {name} has SHA-256 {actual}, wanted {digest}. "
                "A prompt works on the exact weights and tokenizer it was tuned on: pull that base."
            )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_bytes(canonical_json(value) + b"\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"Cannot read {str(path)!r} of a prompt artifact: {error}. Pull the prompt again."
        ) from error
    return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"Cannot read {str(path)!r} of a prompt artifact: {error}. Pull the prompt again."
        ) from error
