"""The input-level prompt as one plain tensor, for engines that take input embeddings instead of token ids.

    prompt_embeds.safetensors   `prompt_embeds` [P, d]: stands directly before the embeddings of the text

What lies beside it is in `beside.py`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from pipelines.interchange.beside import check_kind, write_beside
from pipelines.prompts.artifact import SoftPrompt

FILE = "prompt_embeds.safetensors"


def write_prompt_embeds(prompt: SoftPrompt, base_folder: Path, folder: Path) -> None:
    """Fill `folder`, which is empty, with a prompt of the kind `embeddings`.

    Raises:
        ArtifactError: the prompt enters somewhere else than among the input embeddings before the text.
    """
    check_kind(prompt, "prompt-embeds", {"embeddings"})
    embeddings = prompt.tensors["embeddings"]
    save_file({"prompt_embeds": embeddings}, folder / FILE)
    write_beside(folder, prompt, "prompt-embeds", len(embeddings), "after the prompt")
