"""Many prompts on one frozen base: each batch mixes them, and only the base takes memory to speak of.

    engine = Engine(base_folder)
    engine.add("tickets", Path("prompts/tickets-v3"))
    engine.predict([("tickets", "My card was charged twice"), ("sentiment", "What a day")])

A prompt is ready when its digests were checked and its proof was replayed here. Threads may add, remove and predict at
the same time: an entry is never changed, only replaced, and a call answers each row from one entry. The base computes
for one call at a time.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from transformers import AutoTokenizer

from pipelines.digests import digest_file
from pipelines.inference.base import Base, load_base
from pipelines.inference.generation import written_on
from pipelines.inference.mixed import Text, logits
from pipelines.inference.predictor import Answer, Predictor, answer, ready
from pipelines.inference.shelf import Shelf
from pipelines.inference.untouched import Untouched, check_answers_untouched, without_vectors
from pipelines.prompts.artifact import SoftPrompt, check_base, read_prompt, read_proof


class Engine:
    """One base, and the prompts that answer on it.

    Args:
        base_folder: every prompt must have been minted on exactly this base.
        device: where the base computes.
        prompt_bytes: how much memory the tensors of prompts may take between calls; the ones that were not asked for
            the longest are dropped first and read again from their folder when they are. None: no bound.
    """

    def __init__(self, base_folder: Path, device: str = "cpu", prompt_bytes: int | None = None) -> None:
        self.base_folder = base_folder
        self.base = _in_own_memory(load_base(base_folder, device))
        self.tokenizer = AutoTokenizer.from_pretrained(base_folder)
        self._digest = functools.cache(digest_file)  # the base is in memory: its files are digested once
        self._shelf = Shelf(prompt_bytes)
        self._computing = threading.Lock()

    def add(self, name: str, folder: Path, expected_digest: str | None = None) -> float:
        """The largest difference of a logit from the proof of the prompt that is now ready under this name.

        Another prompt of this name answers until then, and goes on answering where this one is refused.

        Raises:
            ArtifactError: the prompt is damaged, is another one than expected, or does not answer as it was proven to.
            BaseModelError: it was minted on another base.
        """
        stored, proof = self._read(folder, expected_digest), read_proof(folder)
        with self._computing:
            prompt = ready(stored, self.base)
            difference = Predictor(prompt, self.base, self.tokenizer).replay(proof)
        self._shelf.put(name, folder, prompt)
        return difference

    def remove(self, name: str) -> None:
        """Forget a prompt; calls that are under way still answer with it.

        Raises:
            ArtifactError: there is none of this name.
        """
        self._shelf.take(name)

    def prompts(self) -> Mapping[str, SoftPrompt]:
        """What is ready now, by name. A prompt that is not in memory has its card and digest, and no tensors."""
        return MappingProxyType(self._shelf.prompts())

    def predict(self, requests: Sequence[tuple[str | Untouched, Text]]) -> list[Answer]:
        """An answer per (name of a prompt, text), in their order; a prompt of pairs is asked with two texts, a tuple.

        `Untouched(name)` in the place of a name asks the base alone, zero-shot, as a row of the same batch.

        Raises:
            ArtifactError: there is no prompt of a name, or one that must be read again has changed in its folder.
            BaseModelError: the base alone has no answer, because the prompt's labels are a linear head's.
            DataError: a text has no tokens, or is one where its prompt wants two, or the other way round.
        """
        chosen = {name: self._chosen(name) for name in dict.fromkeys(name for name, _ in requests)}
        for name in chosen:
            if isinstance(name, Untouched):
                check_answers_untouched(name.name, chosen[name].card)
        with self._computing:
            found = logits(self.base, self.tokenizer, [(chosen[name], text) for name, text in requests])
        return [
            answer(chosen[name].labels, row.softmax(0).tolist()) for (name, _), row in zip(requests, found, strict=True)
        ]

    def generate(self, name: str | Untouched, text: Text, max_new_tokens: int | None = None) -> Iterator[str]:
        """Pieces of what the base writes after a text, as they come; other calls may run in between.

        A decoder does so with any prompt that ends before what it writes, an encoder-decoder with those that were
        tuned to write. These end by themselves after as many tokens as their recipe says.

        `Untouched(name)` in the place of a name: what the base writes of its own after the text in that template.

        Raises:
            ArtifactError: as for `predict`.
            BaseModelError: the base cannot write with this prompt.
        """
        prompt = self._chosen(name)
        with self._computing:
            pieces = written_on(self.base, self.tokenizer, prompt, text, max_new_tokens)
        return self._taking_turns(pieces)

    def _taking_turns(self, pieces: Iterator[str]) -> Iterator[str]:
        """The same pieces, the lock held while each is made and not while it is handed out."""
        while True:
            with self._computing:
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def _chosen(self, name: str | Untouched) -> SoftPrompt:
        """The prompt of a name, with its tensors; or nothing but its template and head."""
        if isinstance(name, Untouched):
            return without_vectors(self._shelf.get(name.name, self._again))
        return self._shelf.get(name, self._again)

    def _read(self, folder: Path, digest: str | None) -> SoftPrompt:
        prompt = read_prompt(folder, digest)
        check_base(prompt.card, self.base_folder, self._digest)
        return prompt

    def _again(self, folder: Path, digest: str) -> SoftPrompt:
        """A prompt that was dropped; it has this digest, so that its proof was replayed when it was added."""
        stored = self._read(folder, digest)
        with self._computing:
            return ready(stored, self.base)


def _in_own_memory(base: Base) -> Base:
    """The base, none of its weights mapped from a file: what is done to the file must not reach a running engine."""
    for part in filter(None, (base.whole, base.lm_head)):
        for parameter in part.parameters():
            parameter.data = parameter.data.clone()
    return base
