"""A prompt written in another tool's layout: proven there, then published whole, or not at all."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer

from pipelines.errors import ArtifactError, listed
from pipelines.inference.forward import padded
from pipelines.interchange import answer
from pipelines.interchange.beside import CARD
from pipelines.interchange.peft import write_peft
from pipelines.interchange.prompt_embeds import write_prompt_embeds
from pipelines.prompts.artifact import Proof, check_base, read_prompt, read_proof
from pipelines.recipe import Template
from pipelines.tokens.template import encode

LAYOUTS = {"peft": write_peft, "prompt-embeds": write_prompt_embeds}


def export(artifact: Path, base_folder: Path, layout: str, target: Path, expected_digest: str | None = None) -> float:
    """The largest difference of a logit when the prompt's proof was replayed with the other tool; `target` is written.

    Args:
        artifact: the folder of a minted prompt, proof included.
        base_folder: the base that it was minted on.
        layout: `peft` or `prompt-embeds`.
        target: the folder to make; an earlier export there is replaced.
        expected_digest: of the prompt.

    Raises:
        ArtifactError: the layout cannot express the prompt, or does not answer as the prompt was proven to.
        BaseModelError: the base is not the exact one that the prompt was minted on.
    """
    if layout not in LAYOUTS:
        raise ArtifactError(f"There is no layout {layout!r}; there are {listed(LAYOUTS)}.")
    prompt, proof = read_prompt(artifact, expected_digest), read_proof(artifact)
    if prompt.writes and len(prompt.head["opening"]):
        raise ArtifactError(
            "This prompt was tuned to write texts (head.kind = 'generation') on an encoder-decoder; prompts that write "
            "are exported from decoders alone. Serve it with promptmint or as its MLflow model."
        )
    check_base(prompt.card, base_folder)
    with _published(target) as folder:
        LAYOUTS[layout](prompt, base_folder, folder)
        return _replayed(folder, base_folder, proof, Template(**prompt.card["template"]))


def _replayed(folder: Path, base_folder: Path, proof: Proof, template: Template) -> float:
    """The largest difference of a logit from the proof, answered as `answer.py` does for people without promptmint."""
    rows = [row.input_ids for row in encode(AutoTokenizer.from_pretrained(base_folder), template, proof.texts)]
    try:
        with warnings.catch_warnings(action="ignore"):  # PEFT calls what transformers is about to drop
            logits, same_tokens = _answered(answer.load(folder, base_folder), rows, proof.said)
    except ModuleNotFoundError as error:
        raise ArtifactError(
            f"Cannot prove the export: {error.name!r} is not installed, and what is not proven is not exported. "
            "Install promptmint with its extra 'pipeline'."
        ) from error
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
        raise ArtifactError(
            f"The exported prompt does not run on this base outside promptmint: {' '.join(str(error).split())} Serve "
            "it with promptmint."
        ) from error
    difference = float((logits.float() - proof.logits).abs().max())
    if not difference <= proof.tolerance:
        raise ArtifactError(
            f"Outside promptmint the exported prompt answers differently: a logit differs by {difference:.2e}, more "
            f"than {proof.tolerance:.0e}. This base reads prompts in a way that the layout cannot express: serve it "
            "with promptmint."
        )
    if not same_tokens:
        raise ArtifactError(
            "Outside promptmint the exported prompt writes other tokens than it was proven to write. Serve it with "
            "promptmint."
        )
    return difference


def _answered(exported: answer.Exported, rows: list[list[int]], said: Tensor | None) -> tuple[Tensor, bool]:
    """What the proof keeps, [N, C]: class logits, or those of the tokens said; and whether it would say these again."""
    ids, mask = padded(rows)
    if said is None:
        return answer.class_logits(exported, ids, mask), True
    following = answer.next_logits(exported, ids, mask, said)[:, :-1]
    return following.take_along_dim(said[..., None], dim=2)[..., 0], torch.equal(following.argmax(2), said)


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` only when it is complete."""
    if target.exists() and not (target / CARD).is_file():
        raise ArtifactError(f"{str(target)!r} exists and is no export of a prompt: name another folder, or move it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as building:
        folder = Path(building) / "export"
        folder.mkdir()
        yield folder
        if target.exists():
            target.rename(Path(building) / "earlier")
        folder.rename(target)
