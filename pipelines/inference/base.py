"""A frozen base: loaded so that nothing in it changes, its attentions found without knowing its architecture by name.

This file travels inside every packaged model and imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from .attention import ATTENTION, watched
from .blocks import block_of


@dataclass(frozen=True)
class AttentionLayer:
    """One self-attention of the base, in the order of the forward pass."""

    module: nn.Module
    kv_heads: int
    head_width: int
    block: nn.Module | None  # the layer it is part of, hidden states in and hidden states out


@dataclass
class Base:
    """A frozen model without its task heads.

    `backbone` reads the text and gives hidden states; `lm_head` turns them, or those of the decoder of an
    encoder-decoder, into vocabulary scores, where the model has one.
    """

    backbone: Any
    lm_head: Any
    decoder: bool
    layers: tuple[AttentionLayer, ...]  # of the backbone
    seq2seq: Any = None  # an encoder-decoder as a whole; its encoder is the backbone
    separator: int | None = None  # the token that ends a segment, where the base tells the first from the second
    packs: bool = False  # whether rows of different lengths may run without their padding: see `features.py`

    @property
    def whole(self) -> Any:
        """The backbone, or the encoder-decoder that it is part of."""
        return self.backbone if self.seq2seq is None else self.seq2seq

    @property
    def attentions(self) -> list[nn.Module]:
        """The self-attentions of the backbone, in the order of the forward pass."""
        return [layer.module for layer in self.layers]

    @property
    def hidden_width(self) -> int:
        """d, the width of the input embeddings."""
        return int(self.embeddings.weight.shape[1])

    @property
    def embeddings(self) -> Any:
        """The table of token embeddings [vocabulary, d]."""
        return self.backbone.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = self.embeddings.weight.device
        return device

    @property
    def pooling(self) -> str:
        """What a linear head reads: the mean over text positions (encoders) or the last of them (decoders)."""
        return "last" if self.decoder else "mean"


def load_base(folder: Path, device: str | torch.device = "cpu") -> Base:
    """The base in a folder: float32, in eval mode, no weight asking for a gradient.

    Only safetensors are read and no code from the folder is run.

    Raises:
        ValueError: an architecture without soft prompts: it reads more than text, or its attention is its own.
    """
    config = AutoConfig.from_pretrained(folder)
    decoder, seq2seq = _is_decoder(config), None
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": ATTENTION, "use_safetensors": True}
    if config.is_encoder_decoder:
        seq2seq = AutoModelForSeq2SeqLM.from_pretrained(folder, **options)
        backbone, lm_head = seq2seq.get_encoder(), seq2seq.get_output_embeddings()
    elif decoder:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
        backbone, lm_head = model.base_model, model.get_output_embeddings()
    else:
        backbone, lm_head = AutoModel.from_pretrained(folder, **options), None
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # heads read text positions, not a pooled one
    for part in filter(None, (backbone, lm_head, seq2seq)):
        part.eval()
        part.requires_grad_(False)
        part.to(device)
    layers, packs = _attention_layers(backbone), decoder and _sees_all(config)
    return Base(backbone, lm_head, decoder, layers, seq2seq, _separator(folder, config), packs)


AFTER_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text")


def context_of(config: Any) -> int | None:
    """How many positions a base reads, prompt and text together, by its config; None: any number.

    RoBERTa and its kin count from behind the padding token's id: of 514 positions with padding 1 they read 512.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or config.model_type not in AFTER_PADDING:
        return positions
    return int(positions - config.pad_token_id - 1)


def _is_decoder(config: Any) -> bool:
    """Whether a checkpoint was trained left to right, by the class that it names."""
    names = config.architectures or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def _sees_all(config: Any) -> bool:
    """Whether every position of a decoder sees all before it, in every layer: no sliding windows, no chunks."""
    kinds = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return window is None and all(kind == "full_attention" for kind in kinds)


def _separator(folder: Path, config: Any) -> int | None:
    """The token that ends a segment of a base with token types (BERT-like), as its tokenizer says."""
    if getattr(config, "type_vocab_size", 0) < 2 or not (folder / "tokenizer_config.json").exists():
        return None
    separator: int | None = AutoTokenizer.from_pretrained(folder).sep_token_id
    return separator


def _attention_layers(backbone: Any) -> tuple[AttentionLayer, ...]:
    """The self-attentions, found by watching one token pass: no architecture needs to be known by name."""
    with torch.no_grad():
        seen = watched(backbone, input_ids=torch.zeros(1, 1, dtype=torch.long, device=backbone.device))
    return tuple(
        AttentionLayer(module, key.shape[1], key.shape[3], block_of(backbone, module)) for module, key, _ in seen
    )
