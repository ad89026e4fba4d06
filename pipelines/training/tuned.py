"""One base tuned in one way: what a soft prompt and each of its baselines look like to the training loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipelines.errors import RecipeError, listed
from pipelines.inference.base import Base
from pipelines.inference.features import features
from pipelines.inference.forward import class_scores, read_once
from pipelines.inference.label_words import must_be_read, word_scores
from pipelines.inference.writing import target_logits, writes
from pipelines.prompts.artifact import SoftPrompt
from pipelines.prompts.methods import new_prompt, possible_on
from pipelines.prompts.parameterisation import Dropout, Placed
from pipelines.recipe import Adapters, Full, HeadOnly, Lora, Method, Prompt, ZeroShot
from pipelines.training.adapters import with_adapters

THROUGHOUT = ("late", "dept", "iapt")  # methods that change written tokens of a decoder too
Settings = Prompt | Lora | Adapters | Full | HeadOnly | ZeroShot


class Tuned(nn.Module):
    """A base, perhaps a prompt, and a head; `forward` gives class logits, or those of a text to be written.

    Only parameters that ask for a gradient are trained, and only they are stored.
    """

    def __init__(self, base: Base, prompt: nn.Module | None, head: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.base = base
        self.backbone = base.backbone
        self.prompt = prompt
        self.head = nn.ParameterDict()
        if "weight" not in head:
            for name, tensor in head.items():
                self.register_buffer(name, tensor, persistent=False)
            self.lm_head = base.lm_head if base.seq2seq is None else base.seq2seq
        else:
            self.head.update({name: nn.Parameter(tensor) for name, tensor in head.items()})

    def forward(self, input_ids: Tensor, mask: Tensor, targets: Tensor | None = None) -> Tensor:
        """Class logits [B, C] of token ids and their mask, each [B, T].

        With targets [B, U] what is said in the place of each of their N tokens, [N, vocabulary]: see `target_logits`.
        """
        head = self.head_tensors()
        if targets is not None:
            return target_logits(self.base, input_ids, mask, self.folded(), head, targets)
        if "word_ids" in head:
            return word_scores(self.base, input_ids, mask, self.folded(), head)
        return self.scores(self.features(input_ids, mask))

    def features(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """What a linear head reads, [B, d]: pooled hidden states."""
        return features(self.base, input_ids, mask, self.folded(), self.base.pooling)

    def folded(self) -> Mapping[str, Tensor]:
        """The tensors to inject, read once where that serves all rows; none without a prompt."""
        return read_once(self.base, self.prompt()) if self.prompt is not None else {}

    def scores(self, features: Tensor) -> Tensor:
        """Class logits [B, C] of features [B, d], from a linear head."""
        return class_scores(self.base, features, self.head_tensors())

    def head_tensors(self) -> dict[str, Tensor]:
        """The head by the names of `inference/forward.py`."""
        return dict(self.head.items()) or dict(self.named_buffers(recurse=False))

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained, by name; a weight that two modules share comes once."""
        return ((name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad)

    def trainable_params(self) -> int:
        """How many numbers are trained, head included."""
        return sum(parameter.numel() for _, parameter in self.trained())

    def begin(self, prompt: SoftPrompt) -> None:
        """Start from a minted prompt and its head, in the place of the seeded start.

        Its tensors must be what is trained here, as those of a `Direct` parameterisation are.
        """
        place, module, tensors = "prompt", self.prompt, prompt.tensors
        if isinstance(module, Placed):
            tensors = {"embeddings": tensors[module.name]}
        while isinstance(module, Placed | Dropout):
            place, module = f"{place}.inner", module.inner
        head = prompt.head if "weight" in prompt.head else {}
        self.restore(
            {f"{place}.{name}": tensor for name, tensor in tensors.items()}
            | {f"head.{name}": tensor for name, tensor in head.items()}
        )

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Put stored weights back, each under the name it was trained by."""
        trained = dict(self.trained())
        if trained.keys() != weights.keys():
            raise ValueError(f"Stored weights {listed(weights)} do not fit; this method trains {listed(trained)}.")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(weights[name])


def tune(
    base: Base, settings: Settings, head: Mapping[str, Tensor], seed: int, start_ids: Sequence[int] = (),
    marked: bool = False,
) -> Tuned:  # fmt: skip
    """A base made ready to be tuned by a method, at its seeded start.

    The base itself is left alone: LoRA, adapters and full fine-tuning work on copies. `start_ids` is the text that a
    soft prompt starts from, where its recipe names one; `marked` says that it stands where its rows have a marker.

    Raises:
        RecipeError: the method cannot be had on this base.
    """
    match settings:
        case Prompt():
            if writes(head) and base.decoder and settings.method in THROUGHOUT:
                others = set(possible_on(base)) - set(THROUGHOUT)
                raise RecipeError(
                    f"{settings.method} steers every position of a decoder, those that it writes included, which "
                    f"head.kind = 'generation' does not do here. On a decoder choose one of {listed(others)}; on an "
                    "encoder-decoder, whose encoder reads the prompt, every method will do."
                )
            if settings.method == "iapt" and base.decoder and must_be_read(base, head):
                raise RecipeError(
                    "iapt makes its prompt of all that a decoder reads, and it would read the beginning of a label "
                    "word of several tokens too. Choose label words of one token each, or another method; possible on "
                    f"this base: {listed(method for method in possible_on(base) if method != 'iapt')}."
                )
            prompt = new_prompt(base, settings, seed, start_ids)
            if settings.half == "decoder":
                if base.seq2seq is None or "word_ids" not in head:
                    raise RecipeError(
                        "prompt.half = 'decoder' needs an encoder-decoder (T5, BART) and label words, which its "
                        "decoder says; other bases have no such half. Leave the key out."
                    )
                prompt = Placed(prompt, "in_decoder")
            return Tuned(base, Placed(prompt, "inserted") if marked else prompt, head).to(base.device)
        case Lora():
            with torch.random.fork_rng(devices=[]):  # PEFT draws its start from the global state
                torch.manual_seed(seed)
                return Tuned(_with_lora(copy.deepcopy(base), settings), None, head).to(base.device)
        case Adapters():
            with torch.random.fork_rng(devices=[]):  # torch draws a linear map's start from the global state
                torch.manual_seed(seed)
                return Tuned(with_adapters(copy.deepcopy(base), settings), None, head).to(base.device)
        case Full():
            tuned = Tuned(copy.deepcopy(base), None, head).to(base.device)
            tuned.backbone.requires_grad_(True)
            if (lm_head := getattr(tuned, "lm_head", None)) is not None:
                lm_head.requires_grad_(True)
            return tuned
        case HeadOnly() | ZeroShot():
            return Tuned(base, None, head).to(base.device)


def train_mode(tuned: Tuned, settings: Method) -> None:
    """The base in eval mode, its own dropout off, save for full fine-tuning that asks for it; a method's dropout on."""
    tuned.train(isinstance(settings, Full) and settings.dropout)
    for name, part in tuned.named_modules():
        if name == "prompt" or name.endswith(("lora_dropout", "adapter.dropout")):
            part.train()


def linear_head(base: Base, classes: int, seed: int) -> dict[str, Tensor]:
    """A linear head's start: weight [C, d] drawn from N(0, 0.02), bias [C] zero."""
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(classes, base.hidden_width, generator=generator) * 0.02
    return {"weight": weight, "bias": torch.zeros(classes)}


def _with_lora(base: Base, settings: Lora) -> Base:
    """The base with low-rank updates hung into its attention, by PEFT (Hu et al., "LoRA", ICLR 2022).

    In an encoder-decoder the decoder gets them too; they are trained where label words are scored, that is, where it
    runs.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as ATTENTION
    from transformers.pytorch_utils import Conv1D

    targets = settings.targets
    if targets == "attention":
        targets = tuple(ATTENTION.get(base.backbone.config.model_type, ()))
    parts = {name.rpartition(".")[2]: part for name, part in base.whole.named_modules()}
    linear = {name for name, part in parts.items() if isinstance(part, nn.Linear | Conv1D)}
    if not targets or not set(targets) <= linear:
        raise RecipeError(f"baselines.lora.targets = {list(targets)!r} are not in this base; it has {listed(linear)}.")
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=list(targets)
    )
    config.fan_in_fan_out = any(isinstance(parts[name], Conv1D) for name in targets)  # GPT-2 keeps its maps transposed
    inject_adapter_in_model(config, base.whole)
    return base
