"""Prompts as adapter folders of the PEFT library, there and back.

    adapter_config.json         PROMPT_TUNING or PREFIX_TUNING, with the shapes written out
    adapter_model.safetensors   `prompt_embeddings`, in PEFT's layout:
                                [P, d] for `embeddings`; [P, L * 2 * H_kv * d_h] for `keys` and `values`,
                                in which each layer's keys stand before its values

On an encoder-decoder PROMPT_TUNING stands before the text in the encoder where `num_transformer_submodules` is 1; where
that is not said PEFT takes 2, and holds 2P vectors.

A head is not part of it: PEFT's own classifiers pool and map differently. What lies beside it is in `beside.py`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import MODEL_MAPPING, AutoConfig

from pipelines.digests import digest_file, digest_files, folder_files
from pipelines.errors import ArtifactError, BaseModelError, listed
from pipelines.inference.base import Base, load_base
from pipelines.interchange.beside import HEAD, check_kind, read_beside, read_json, read_tensors, write_beside
from pipelines.prompts.artifact import SoftPrompt, check_base
from pipelines.prompts.injection import input_shapes, key_value_shapes

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PROMPT = "prompt_embeddings"
SCORE = "base_model.score.weight"  # PEFT's classifier on a decoder: no bias, reads the last position
TYPES = {"PROMPT_TUNING": "embeddings", "P_TUNING": "embeddings", "PREFIX_TUNING": "keys"}
TASKS = ("CAUSAL_LM", "FEATURE_EXTRACTION", "SEQ_CLS")
SEQ2SEQ = "SEQ_2_SEQ_LM"  # the task of encoder-decoders


@dataclass(frozen=True)
class ImportedPrompt:
    """A prompt read from a PEFT folder: the tensors of an artifact, and the base that they were checked against.

    `head` is empty where the folder has none. `base` has the `digest` of the base's folder, and of each of its `files`.
    """

    tensors: dict[str, Tensor]
    head: dict[str, Tensor]
    base: dict[str, Any]


def write_peft(prompt: SoftPrompt, base_folder: Path, folder: Path) -> None:
    """Fill `folder`, which is empty, with an adapter that plain PEFT loads onto the base in `base_folder`.

    Raises:
        ArtifactError: PEFT cannot express this prompt on this base.
    """
    check_kind(prompt, "peft", {"embeddings", "keys", "values"})
    config: dict[str, Any] = {
        "task_type": _task(prompt),
        "base_model_name_or_path": None,  # a name could be looked up and bring other weights
        "inference_mode": True,
        "num_transformer_submodules": 1,
    }
    text_positions = "after the prompt"
    if "embeddings" in prompt.tensors:
        flat = prompt.tensors["embeddings"]
        config |= {"peft_type": "PROMPT_TUNING", "token_dim": flat.shape[1]}
    else:
        encoder = prompt.card["head"]["pooling"] == "mean"
        _check_prefix(prompt, AutoConfig.from_pretrained(base_folder))
        text_positions = "from 0" if encoder else text_positions
        flat = flattened(prompt.tensors["keys"], prompt.tensors["values"])
        layers, heads, _, width = prompt.tensors["keys"].shape
        config |= {"peft_type": "PREFIX_TUNING", "prefix_projection": False, "num_layers": layers}
        config |= {"num_attention_heads": heads, "token_dim": heads * width}
    config["num_virtual_tokens"] = len(flat)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    save_file({PROMPT: flat}, folder / WEIGHTS)
    write_beside(folder, prompt, "peft", len(flat), text_positions)


def read_peft(folder: Path, base_folder: Path) -> ImportedPrompt:
    """The prompt in a PEFT folder: prompt tuning, p-tuning or prefix tuning; PEFT keeps the last two folded.

    Args:
        folder: adapter_config.json and adapter_model.safetensors, and what `write_peft` puts beside them.
        base_folder: the base that the prompt was tuned on. The answer names it by the digest of its bytes.

    Raises:
        ArtifactError: the folder is damaged, is of another method, or promptmint cannot express it on this base.
        BaseModelError: the base cannot be used, or is not the one that an export of promptmint belongs to.
    """
    card, config = read_beside(folder), read_json(folder / CONFIG)
    if card is not None:
        check_base(card, base_folder)
    kind, task = _kind(config), config.get("task_type")
    stored = _weights(folder)
    try:
        base = load_base(base_folder)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"Cannot use this base: {error}") from error
    if kind == "keys" and not base.decoder and (card is None or card["text_positions"] != "from 0"):
        raise ArtifactError(
            f"The prefix in {str(folder)!r} was tuned by PEFT, which counts an encoder's text positions from the "
            "number of prompt tokens on; promptmint counts them from 0. The same tensors would answer differently: "
            "tune it anew with method = 'p-tuning-v2'."
        )
    if (task == SEQ2SEQ) != (base.seq2seq is not None):
        raise ArtifactError(
            f"The adapter's task is {task!r}; on an encoder-decoder it has to be {SEQ2SEQ!r}, and on no other base. It "
            "belongs to another base: name the one that it was tuned on."
        )
    flat = stored.pop(PROMPT)
    tensors = _tensors(kind, flat, config, base)
    head = read_tensors(folder / HEAD) if card is not None else _score(stored, base)
    files = {path.relative_to(base_folder).as_posix(): digest_file(path) for path in folder_files(base_folder)}
    return ImportedPrompt(tensors, head, {"digest": digest_files(files), "files": files})


def _task(prompt: SoftPrompt) -> str:
    """Which of PEFT's models the prompt's answers come from: one with a language-model head, or a bare one."""
    if not prompt.writes and "word_ids" not in prompt.head:
        return "FEATURE_EXTRACTION"
    return SEQ2SEQ if len(prompt.head.get("opening", ())) else "CAUSAL_LM"


def flattened(keys: Tensor, values: Tensor) -> Tensor:
    """PEFT's [P, L * 2 * H_kv * d_h] from keys and values, each [L, H_kv, P, d_h]."""
    both = torch.stack([keys, values], dim=1)  # [L, 2, H_kv, P, d_h]
    return both.permute(3, 0, 1, 2, 4).flatten(1).contiguous()


def unflattened(flat: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Keys and values, each of `shape` [L, H_kv, P, d_h], from PEFT's [P, L * 2 * H_kv * d_h]."""
    layers, heads, tokens, width = shape
    keys, values = flat.view(tokens, layers, 2, heads, width).permute(2, 1, 3, 0, 4)
    return keys.contiguous(), values.contiguous()


def _check_prefix(prompt: SoftPrompt, base: Any) -> None:
    """Refuse key/value prompts where a base does not read a cache as promptmint's attention reads a prefix."""
    model: Any = MODEL_MAPPING[type(base)]
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ArtifactError(
            f"PEFT hands a prefix over as past_key_values, which a base of the type {base.model_type!r} does not take. "
            "Serve this prompt with promptmint, or tune one with method = 'prompt-tuning'."
        )
    window = getattr(base, "sliding_window", None)
    longest = prompt.tensors["keys"].shape[2] + prompt.card["template"]["max_tokens"]
    longest += prompt.card["head"].get("max_new_tokens") or 0
    if window is not None and longest > window:
        raise ArtifactError(
            f"With PEFT a prefix slides out of this base's attention window of {window} positions: prompt and text "
            f"take up to {longest}. In promptmint every position sees the prefix. Serve this prompt with promptmint."
        )


def _kind(config: Mapping[str, Any]) -> str:
    """`embeddings` or `keys`, by what an adapter's config says it is."""
    peft_type, task = config.get("peft_type"), config.get("task_type")
    if peft_type not in TYPES:
        raise ArtifactError(
            f"An adapter of the type {peft_type!r} is no prompt that promptmint can express; it can {listed(TYPES)}."
        )
    kind, parts = TYPES[peft_type], config.get("num_transformer_submodules")
    in_the_encoder = task == SEQ2SEQ and kind == "embeddings" and parts == 1
    if not in_the_encoder and (task not in (None, *TASKS) or parts not in (None, 1)):
        raise ArtifactError(
            f"A {peft_type} adapter for the task {task!r} with {parts!r} transformer submodules cannot be expressed. "
            f"promptmint reads prompts of one encoder or decoder, {listed(TASKS)}, and vectors before the text in the "
            f"encoder of an encoder-decoder, {SEQ2SEQ!r} with 1."
        )
    return kind


def _weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of an adapter; its prompt is there, two-dimensional, and made of finite numbers."""
    path = folder / WEIGHTS
    if not path.exists() and (pickled := path.with_suffix(".bin")).exists():
        raise ArtifactError(
            f"{str(pickled)!r} is a pickle, which can run code when it is read; promptmint reads safetensors only. If "
            "you trust it, load the adapter with PEFT and save it again: "
            "PeftModel.from_pretrained(base, FOLDER).save_pretrained(NEW_FOLDER, safe_serialization=True)."
        )
    stored = read_tensors(path)
    if PROMPT not in stored:
        raise ArtifactError(f"{str(path)!r} has no tensor {PROMPT!r}; it has {listed(stored)}. It holds no prompt.")
    flat = stored[PROMPT]
    if flat.ndim != 2 or not flat.is_floating_point() or not bool(flat.isfinite().all()):
        raise ArtifactError(
            f"{PROMPT!r} in {str(path)!r} is {flat.dtype} of shape {list(flat.shape)!r}; a prompt is two-dimensional "
            "and made of finite floating-point numbers. Fetch the folder again, or tune it anew."
        )
    return stored


def _tensors(kind: str, flat: Tensor, config: Mapping[str, Any], base: Base) -> dict[str, Tensor]:
    """The artifact's tensors, held to what the adapter's config says and to what the base needs."""
    tokens = flat.shape[0]
    said = {name: config.get(name) for name in ("num_virtual_tokens", "token_dim")}
    if kind == "embeddings":
        shapes = input_shapes(base, tokens)
        needed = {"num_virtual_tokens": tokens, "token_dim": base.hidden_width}
        width = base.hidden_width
    else:
        shapes = key_value_shapes(base, tokens)
        layers, heads, _, head_width = shapes["keys"]
        said |= {name: config.get(name) for name in ("num_layers", "num_attention_heads")}
        needed = {"num_virtual_tokens": tokens, "token_dim": heads * head_width}
        needed |= {"num_layers": layers, "num_attention_heads": heads}
        width = 2 * layers * heads * head_width
    if said != needed or flat.shape[1] != width:
        raise ArtifactError(
            f"The adapter says {said!r} and holds {list(flat.shape)!r}; this base needs {needed!r} and "
            f"{[tokens, width]!r}. It belongs to another base: name the one that it was tuned on."
        )
    if kind == "embeddings":
        return {"embeddings": flat}
    keys, values = unflattened(flat, shapes["keys"])
    return {"keys": keys, "values": values}


def _score(others: Mapping[str, Tensor], base: Base) -> dict[str, Tensor]:
    """The linear head among an adapter's other tensors; empty where there is none."""
    if not others:
        return {}
    if set(others) != {SCORE} or not base.decoder or others[SCORE].shape[1:] != (base.hidden_width,):
        raise ArtifactError(
            f"The adapter was trained with {listed(others)} beside its prompt, which promptmint cannot express: its "
            "head is linear, on the mean over the text of an encoder or the last position of a decoder. Only a "
            f"decoder's {SCORE!r} is that. Tune the prompt anew with promptmint."
        )
    weight = others[SCORE]
    return {"weight": weight, "bias": weight.new_zeros(len(weight))}
