"""What the soft prompt in this folder answers, from plain transformers and PEFT; nothing of promptmint is needed.

    python answer.py BASE_FOLDER "a text" "another text"

promptmint wrote this file beside the prompt, and proved the folder with it before publishing it. Read it as a pattern
for your own code: `load` is how the prompt comes onto its base, `class_logits` is how its classes are scored; where it
was tuned to write texts, `next_logits` is what it says next.

B texts of T tokens, padded on the right; P prompt tokens; hidden width d; C classes; V tokens in the vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer


@dataclass(frozen=True)
class Exported:
    """An exported prompt on its base: `card` is promptmint.json, `head` its head's tensors.

    `embeddings` [P, d] is the prompt where the folder holds plain input embeddings; a PEFT model carries its own.
    """

    card: dict[str, Any]
    model: Any
    head: dict[str, Tensor]
    embeddings: Tensor | None


def load(folder: Path, base_folder: Path) -> Exported:
    """The prompt in `folder` on the base in `base_folder`, in float32."""
    card = json.loads((folder / "promptmint.json").read_bytes())
    head = load_file(folder / "head.safetensors")
    auto: Any = AutoModel
    if "word_ids" in head or "ends" in head:
        auto = AutoModelForSeq2SeqLM if _has_opening(head) else AutoModelForCausalLM
    model = auto.from_pretrained(base_folder, dtype=torch.float32, use_safetensors=True)
    embeddings = None
    if card["layout"] == "peft":
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder))
    else:
        embeddings = load_file(folder / "prompt_embeds.safetensors")["prompt_embeds"]
    return Exported(card, model.eval(), head, embeddings)


@torch.no_grad()
def class_logits(exported: Exported, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Class logits [B, C] of token ids [B, T] with their mask, 1 on text and 0 on the padding to its right."""
    card, head, length = exported.card, exported.head, input_ids.shape[1]
    out = _run(exported, input_ids, mask)
    rows, last = torch.arange(len(mask)), mask.sum(1) - 1
    if _has_opening(head):  # how likely the decoder is to say each label word after its opening, as logarithms
        said: Tensor = out.logits[:, -1].log_softmax(dim=-1)
        return said[:, head["word_ids"]]
    if "word_ids" in head:  # the scores of the label words where the next word would stand
        scores: Tensor = out.logits[:, -length:][rows, last]
        return scores[:, head["word_ids"]]
    states: Tensor = out.last_hidden_state[:, -length:]  # the text's positions are the last T, the prompt's come before
    if card["head"]["pooling"] == "mean":
        weights = mask.to(states.dtype)[..., None]
        features = (states * weights).sum(1) / weights.sum(1)
    else:
        features = states[rows, last]
    return torch.nn.functional.linear(features, head["weight"].to(features), head["bias"].to(features))


@torch.no_grad()
def next_logits(exported: Exported, input_ids: Tensor, mask: Tensor, said: Tensor) -> Tensor:
    """Logits [B, U + 1, V] of what a decoder says after each text, and after each of the tokens `said` [B, U] since."""
    places = mask.sum(1, keepdim=True) + torch.arange(said.shape[1])  # [B, U]: directly after each text
    ids, mask = (torch.nn.functional.pad(part, (0, said.shape[1])) for part in (input_ids, mask))
    last = mask.sum(1, keepdim=True) - 1
    ids, mask = ids.scatter(1, places, said), mask.scatter(1, places, 1)
    logits: Tensor = _run(exported, ids, mask).logits[:, -ids.shape[1] :]
    return logits.take_along_dim(torch.cat([last, places], dim=1)[..., None], dim=1)


def written(exported: Exported, input_ids: Tensor) -> list[int]:
    """The tokens written after one text [1, T], the likeliest each time; every step reads all of them anew."""
    ends, most = exported.head["ends"].tolist(), exported.card["head"]["max_new_tokens"]
    context = getattr(exported.model.config, "max_position_embeddings", None)
    if context is not None:
        most = min(most, context - exported.card["tokens"] - input_ids.shape[1] + 1)
    said: list[int] = []
    while len(said) < most and not (said and said[-1] in ends):
        logits = next_logits(exported, input_ids, torch.ones_like(input_ids), torch.tensor([said], dtype=torch.long))
        said.append(int(logits[0, -1].argmax()))
    return said


def _has_opening(head: dict[str, Tensor]) -> bool:
    """Whether the head is of an encoder-decoder, whose decoder reads an opening before it speaks."""
    return "opening" in head and len(head["opening"]) > 0


def _run(exported: Exported, input_ids: Tensor, mask: Tensor) -> Any:
    tokens, model = exported.card["tokens"], exported.model
    extra = {}
    if _has_opening(exported.head):  # an encoder-decoder: the prompt and the text enter its encoder
        extra["decoder_input_ids"] = exported.head["opening"].expand(len(mask), -1)
    if exported.embeddings is not None:
        embedded = model.get_input_embeddings()(input_ids)
        prompt = exported.embeddings.to(embedded).expand(len(embedded), -1, -1)
        mask = torch.cat([mask.new_ones(len(mask), tokens), mask], dim=1)
        return model(inputs_embeds=torch.cat([prompt, embedded], dim=1), attention_mask=mask, **extra)
    if exported.card["text_positions"] == "from 0":  # PEFT adds P to the positions it is given
        extra["position_ids"] = torch.arange(input_ids.shape[1])[None] - tokens
    return model(input_ids=input_ids, attention_mask=mask, **extra)


def main(folder: Path, base_folder: Path, texts: list[str]) -> None:
    """Print a line per text: its label, how sure the prompt is, and the text; or what the prompt writes."""
    card = json.loads((folder / "promptmint.json").read_bytes())
    for name, digest in card["base"]["files"].items():
        if hashlib.sha256((base_folder / name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} in {str(base_folder)!r} is not the base's that this prompt was tuned on. Use that base.")
    exported = load(folder, base_folder)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    for text in texts:
        ids = tokenizer(card["template"]["text"].replace("{text}", text), return_tensors="pt")["input_ids"]
        if ids.shape[1] > card["template"]["max_tokens"]:
            sys.exit(f"{text!r} takes {ids.shape[1]} tokens of {card['template']['max_tokens']} allowed: shorten it.")
        if "ends" in exported.head:
            said = written(exported, ids)
            print(str(tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)).lstrip())
            continue
        shares = class_logits(exported, ids, torch.ones_like(ids)).softmax(dim=1)[0]
        best = int(shares.argmax())
        print(f"{card['labels'][best]}  {100 * float(shares[best]):.1f} %  {text}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(__file__).resolve().parent, Path(sys.argv[1]), sys.argv[2:])
