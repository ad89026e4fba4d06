"""A target as the base is to write it: the tokens of the text, and the one that ends it.

A decoder writes on after a template, so its targets are read as they stand after a space; a decoder of an
encoder-decoder begins with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..digests import digest_json
from ..errors import RecipeError

WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how the classes of bases that write are called


def target_ids(tokenizer: Any, base_folder: Path, targets: Sequence[str]) -> list[list[int]]:
    """The token ids of each target, its end token last.

    Raises:
        RecipeError: the base is an encoder, which does not write, or names no token that ends a text.
    """
    config = json.loads((base_folder / "config.json").read_bytes())
    check_writes(config)
    before, end = "" if config.get("is_encoder_decoder") else " ", end_tokens(config, tokenizer)[0]
    written = tokenizer([f"{before}{text.strip()}" for text in targets], add_special_tokens=False, verbose=False)
    return [[*ids, end] for ids in written["input_ids"]]


def check_writes(config: Mapping[str, Any]) -> None:
    """Let only bases pass that write, by the class that their config names. Raises `RecipeError`."""
    names = config.get("architectures") or []
    if not any(name.endswith(WRITERS) for name in names):
        raise RecipeError(
            f"head.kind = 'generation' needs a base that writes: a decoder (GPT-2-, Llama- or Qwen-like) or an "
            f"encoder-decoder (T5- or BART-like). This one is {config.get('model_type')!r}, of the classes {names!r}: "
            "choose another base, or tune it for labels."
        )


def end_tokens(config: Mapping[str, Any], tokenizer: Any, required: bool = True) -> list[int]:
    """The tokens that end a text: the tokenizer's first, then the config's, one or several.

    Raises:
        RecipeError: there is none, and one is `required`.
    """
    named = config.get("eos_token_id")
    ends = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    known = [end for end in dict.fromkeys(ends) if end is not None]
    if required and not known:
        raise RecipeError(
            "Neither the tokenizer nor the config.json of this base names an end-of-text token, so a text that it "
            "writes would never end. Pin a base that names one."
        )
    return known


def input_name(text: str, pair: str | None = None) -> str:
    """The name that rows with exactly the same input share: what they bring are the references of one example."""
    return digest_json([text] if pair is None else [text, pair])
