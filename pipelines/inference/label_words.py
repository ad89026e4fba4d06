"""Label words scored by the base's own language model: how likely it is to say each of them next.

The score of a word w_1 ... w_n is the logarithm of its probability, which by the chain rule is the sum of its tokens'

    log P(w | text) = sum_j log P(w_j | text, w_1 ... w_{j-1})

and not their mean: no word begins another, so the words exclude each other, and the softmax of the scores is how likely
the base is to say each of them, given that it says one. Rank classification does the same: Sanh et al., "Multitask
Prompted Training Enables Zero-Shot Task Generalization", ICLR 2022, on evaluation. A mean would not be a probability,
and would favour words whose last tokens follow from their first.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from .base import Base
from .features import features
from .forward import class_scores, hidden_states, opened, read

Says = Callable[[Sequence[int]], Tensor]  # from n tokens said so far, logits [B, n + 1, vocabulary] of what is next


def must_be_read(base: Base, head: Mapping[str, Tensor]) -> bool:
    """Whether the base has to read what a head says, label words or a text, so that features alone do not score it."""
    return "ends" in head or ("word_ids" in head and (base.seq2seq is not None or head["word_ids"].dim() > 1))


def word_scores(
    base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor], head: Mapping[str, Tensor]
) -> Tensor:
    """A score for each row and label word, [B, C]; their softmax is over the label words alone.

    Words of one token on a decoder are scored by their logits, which differ from log-probabilities by a number that all
    words share. Words that differ in their last token only are read once.

    Args:
        base: the frozen model.
        input_ids: [B, T], padded on the right.
        mask: [B, T], 1 on text and 0 on padding.
        prompt: as `hidden_states` takes it.
        head: `word_ids` [C], or [C, W] with -1 after shorter words; with an encoder-decoder also `opening` [O], what
            its decoder reads before it speaks.

    Raises:
        ValueError: the base has no language-model head.
    """
    words = head["word_ids"]
    if not must_be_read(base, head):
        return class_scores(base, features(base, input_ids, mask, prompt, "last"), head)
    if base.seq2seq is None:
        prompt = opened(base, input_ids, mask, prompt)  # by the text alone, not by what is said after it
        says: Says = partial(_says_after_text, base, input_ids, mask, prompt)
    else:
        return scores_in_decoder(base, *read(base, input_ids, mask, prompt), prompt, head)
    return _summed(words, says)


def scores_in_decoder(
    base: Base, states: Tensor, mask: Tensor, prompt: Mapping[str, Tensor], head: Mapping[str, Tensor]
) -> Tensor:
    """The same [B, C] of an encoder-decoder whose encoder has read each row: its states [B, S, d] and mask [B, S].

    A prompt `in_decoder` [P, d] stands before the opening. The encoder's states do not depend on it.
    """
    vectors = prompt.get("in_decoder", states.new_empty(0, base.hidden_width))
    return _summed(head["word_ids"], partial(_says_in_decoder, base, states, mask, vectors, head["opening"].tolist()))


def _summed(words: Tensor, says: Says) -> Tensor:
    """The sums of the words' log-probabilities, [B, C]; words that begin alike are asked for once."""
    spelled = [[token for token in word if token >= 0] for word in words.view(len(words), -1).tolist()]
    scores: dict[int, Tensor] = {}
    for stem in dict.fromkeys(tuple(word[:-1]) for word in spelled):
        logits = says(stem)
        said = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        for place, word in enumerate(spelled):
            if tuple(word[:-1]) == stem:
                scores[place] = said[:, range(len(word)), word].sum(1)
    return torch.stack([scores[place] for place in range(len(spelled))], dim=1)


def _says_after_text(
    base: Base, input_ids: Tensor, mask: Tensor, prompt: Mapping[str, Tensor], stem: Sequence[int]
) -> Tensor:
    """Says of a decoder, which reads the stem directly after each row's text."""
    if base.lm_head is None:
        raise ValueError("A verbaliser needs a base with a language-model head; this one has none.")
    steps = torch.arange(len(stem) + 1, device=mask.device)
    places = mask.sum(1, keepdim=True) + steps  # [B, n + 1]: where the stem goes, and one beyond
    ids, mask = (nn.functional.pad(part, (0, len(stem))) for part in (input_ids, mask))
    ids = ids.scatter(1, places[:, :-1], ids.new_tensor(stem).expand(len(ids), -1))
    mask = mask.scatter(1, places[:, :-1], 1)
    states = hidden_states(base, ids, mask, prompt)
    logits: Tensor = base.lm_head(states.take_along_dim(places[..., None] - 1, dim=1))
    return logits


def _says_in_decoder(
    base: Base, states: Tensor, mask: Tensor, vectors: Tensor, opening: Sequence[int], stem: Sequence[int]
) -> Tensor:
    """Says of an encoder-decoder, whose decoder reads vectors, opening and stem, over the encoder's `states`."""
    ids = torch.tensor([*opening, *stem], device=states.device).expand(len(states), -1)
    inputs = {"decoder_input_ids": ids}
    if len(vectors):
        said = base.seq2seq.get_decoder().get_input_embeddings()(ids)
        before = vectors.to(said.dtype).expand(len(ids), -1, -1)
        inputs = {"decoder_inputs_embeds": torch.cat([before, said], dim=1)}
    encoded = BaseModelOutput(last_hidden_state=states)
    answer = base.seq2seq(encoder_outputs=encoded, attention_mask=mask, use_cache=False, **inputs)
    logits: Tensor = answer.logits[:, len(vectors) + len(opening) - 1 :]
    return logits
