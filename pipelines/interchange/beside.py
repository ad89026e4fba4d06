"""What lies beside every exported prompt: whose base it needs, its head, and code that uses it.

promptmint.json     what the prompt is, the SHA-256 of its base's files, and of every other file here
head.safetensors    `weight` [C, d] and `bias` [C]; or `word_ids` [C], a token for each label, and on an encoder-decoder
                    `opening` [O], what its decoder reads before it says one; or of a prompt that writes texts
                    `ends` [E], the tokens that end one, and an empty `opening`
answer.py           a copy of the file of that name in this package
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipelines.digests import digest_file, folder_files
from pipelines.errors import ArtifactError, listed
from pipelines.interchange import answer
from pipelines.prompts.artifact import SoftPrompt

FORMAT = 1
CARD = "promptmint.json"
HEAD = "head.safetensors"
KINDS = {  # what an exported artifact may hold, by where its method says that it enters
    ("input", "before the text"): {"embeddings"},
    ("input", "before the text, in the encoder"): {"embeddings"},  # of an encoder-decoder
    ("key-value", "before the text, in every layer"): {"keys", "values"},
}


def check_kind(prompt: SoftPrompt, layout: str, expressible: set[str]) -> None:
    """Let a prompt pass only if it is what `layout` can express, by what it reads and says and where it enters.

    Raises:
        ArtifactError: it is not.
    """
    if "{pair}" in prompt.card["template"]["text"] or prompt.head.get("word_ids", Tensor()).dim() > 1:
        raise ArtifactError(
            f"The layout {layout!r} answers single texts, by a linear head or by label words of one token each; this "
            "prompt reads pairs or says longer words. Serve it with promptmint, or with MLflow."
        )
    method, names = prompt.card["method"], set(prompt.tensors)
    if method["place"].endswith("in the encoder") and "word_ids" not in prompt.head:
        raise ArtifactError(
            f"The layout {layout!r} answers on an encoder-decoder by the label words that its decoder says; this "
            "prompt's linear head reads the encoder. Serve it with promptmint, or with MLflow."
        )
    if names != KINDS.get((method["injection"], method["place"])) or not names <= expressible:
        raise ArtifactError(
            f"The layout {layout!r} cannot express the method {method['name']!r}: its tensors {sorted(names)!r} enter "
            f"at {method['injection']!r}, {method['place']!r}. It can express {sorted(expressible)!r} before the text. "
            "Serve this prompt with promptmint, or with MLflow."
        )


def write_beside(folder: Path, prompt: SoftPrompt, layout: str, tokens: int, text_positions: str) -> None:
    """Complete an export: its card last, because that names the other files by their digests.

    Args:
        folder: holds the exported tensors, and nothing else.
        prompt: what was exported.
        layout: `peft` or `prompt-embeds`.
        tokens: P.
        text_positions: where the base counts the text's positions from: `after the prompt`, or `from 0`.
    """
    save_file(prompt.head, folder / HEAD)
    shutil.copyfile(answer.__file__, folder / "answer.py")
    card = {
        "format": FORMAT,
        "layout": layout,
        "prompt_digest": prompt.digest,
        "tokens": tokens,
        "place": prompt.card["method"]["place"],
        "text_positions": text_positions,
        **{key: prompt.card[key] for key in ("base", "template", "head", "labels")},
        "files": {path.name: digest_file(path) for path in folder_files(folder)},
    }
    (folder / CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def read_beside(folder: Path) -> dict[str, Any] | None:
    """The card of an export, its files checked; None where promptmint did not write the folder.

    Raises:
        ArtifactError: the card cannot be read, or a file is not the one that was exported.
    """
    if not (folder / CARD).exists():
        return None
    card = read_json(folder / CARD)
    if card.get("format") != FORMAT:
        raise ArtifactError(
            f"The export in {str(folder)!r} has format {card.get('format')!r}; this version reads format {FORMAT}. "
            "Install the promptmint that wrote it, or a newer one."
        )
    if missing := {"base", "files", "text_positions"} - card.keys():
        raise ArtifactError(f"{str(folder / CARD)!r} lacks {listed(missing)}. Export the prompt again.")
    for name, wanted in card["files"].items():
        found = digest_file(folder / name) if (folder / name).is_file() else "(no such file)"
        if found != wanted:
            raise ArtifactError(
                f"{name} in {str(folder)!r} has SHA-256 {found}, wanted {wanted}. It was changed after it was "
                "exported: export the prompt again."
            )
    return card


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises `ArtifactError` where there is none."""
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise ArtifactError(f"Cannot read {str(path)!r}: {error}. Fetch the folder again.") from error
    return value


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file. Raises `ArtifactError` where it is missing, cut short or something else."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"Cannot read {str(path)!r}: {error}. Fetch the folder again.") from error
