"""The distances, each a function of how much every text weighs: so that thousands of resamples are one matrix product.

Every one lies in [0, 1], and is at most s where a share s of the texts was replaced by any others (but for the words:
there s is a share of words). N texts, those from before first; R resamples.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.drift.intervals import Distance, Weights
from pipelines.data.splits import normalised

WORDS = 2000  # told apart; the rarer ones are counted together
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+")  # a word, or one character where words are not spaced


def words_of(text: str) -> list[str]:
    """The words of a normalised text; Chinese and Japanese characters one by one."""
    return _WORD.findall(normalised(text))


def label_shift(labels: Sequence[str]) -> Distance:
    """Total variation of the labels' shares, half the sum of their absolute differences. `labels` of N texts."""
    names, place = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    one_hot = np.eye(len(names), dtype=np.float32)[place]  # [N, labels]
    return lambda before, after: np.abs((before - after) @ one_hot).sum(axis=1, dtype=np.float64) / 2


def length_shift(lengths: NDArray[np.int64]) -> Distance:
    """The Kolmogorov-Smirnov distance of the lengths, the largest difference of their distribution functions."""
    order = np.argsort(lengths, kind="stable")
    last = np.append(np.flatnonzero(np.diff(lengths[order])), len(lengths) - 1)  # of texts of one length
    return lambda before, after: np.abs(np.cumsum((before - after)[:, order], axis=1, dtype=np.float64)[:, last]).max(
        axis=1
    )


@dataclass(frozen=True)
class Words:
    """How often each text has each word.

    Attributes:
        names: of the columns; the most frequent words of all, then "" for every rarer one.
        counts: sparse [N, names].
        totals: words of each text. [N]
        unseen: how many of them no (other) text from before has. [N]
    """

    names: tuple[str, ...]
    counts: Any
    totals: NDArray[np.float32]
    unseen: NDArray[np.float32]


def count_words(texts: Sequence[str], before: int) -> Words:
    """The words of N texts, the first `before` of them from before."""
    from scipy.sparse import csr_array

    bags = [Counter(words_of(text)) for text in texts]
    texts_with = Counter(word for bag in bags[:before] for word in bag)
    pooled: Counter[str] = Counter()
    for bag in bags:
        pooled.update(bag)
    names = sorted(pooled, key=lambda word: (-pooled[word], word))[:WORDS]
    place = {word: column for column, word in enumerate(names)}
    cells = [(row, place.get(word, len(names)), n) for row, bag in enumerate(bags) for word, n in bag.items()]
    rows, columns, counts = np.array(cells, np.int64).reshape(-1, 3).T
    shape = (len(texts), len(names) + 1)
    own = [1] * before + [0] * (len(texts) - before)  # a text from before has not seen itself
    unseen = [
        sum(n for word, n in bag.items() if texts_with[word] <= itself) for bag, itself in zip(bags, own, strict=True)
    ]
    return Words(
        names=(*names, ""),
        counts=csr_array((counts.astype(np.float32), (rows, columns)), shape=shape),  # equal places are summed
        totals=np.array([bag.total() for bag in bags], np.float32),
        unseen=np.array(unseen, np.float32),
    )


def frequencies(weights: Weights, words: Words) -> NDArray[np.float64]:
    """The share of every word among all words of the weighted texts. [R, names]"""
    counted: NDArray[np.float64] = (words.counts.T @ weights.T).T.astype(np.float64)
    shares: NDArray[np.float64] = counted / np.maximum(counted.sum(axis=1, keepdims=True), 1e-12)
    return shares


def divergence(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each word adds to the Jensen-Shannon divergence of two distributions, in bits. [R, names]

    Source: Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    middle = (before + after) / 2

    def against(part: NDArray[np.float64]) -> NDArray[np.float64]:
        ratio = np.divide(part, middle, out=np.ones_like(part), where=part > 0)
        return part * np.log2(ratio)

    return (against(before) + against(after)) / 2


def vocabulary_shift(words: Words) -> Distance:
    """The Jensen-Shannon divergence of the words' frequencies, base 2."""
    return lambda before, after: divergence(frequencies(before, words), frequencies(after, words)).sum(axis=1)


def unseen_words(words: Words) -> Distance:
    """The share of words after that no text from before has, less the same of each text from before and the others.

    The second is what the first is on average where nothing has changed: a sample never has all words (Good 1953, "The
    population frequencies of species", estimates it so too).
    """

    def share(weights: Weights) -> NDArray[np.float64]:
        unseen: NDArray[np.float64] = (weights @ words.unseen) / np.maximum(weights @ words.totals, 1e-12)
        return unseen.astype(np.float64)

    return lambda before, after: share(after) - share(before)


def embedding_shift(states: NDArray[np.float32]) -> Distance:
    """The maximum mean discrepancy of hidden states [N, d], over the largest possible one, the square root of 2.

    Each dimension is standardised over all texts, so that a few large ones do not decide alone; the kernel is Gaussian,
    as wide as the median distance of two texts.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", sections 2.2 and 8 (the median).
    """
    scaled = (states - states.mean(axis=0)) / np.maximum(states.std(axis=0), 1e-6)
    squares = (scaled**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None] - 2 * scaled @ scaled.T, 0)  # [N, N]
    middle = float(np.median(apart[np.triu_indices(len(apart), 1)])) or 1.0
    kernel = np.exp(-apart / (2 * middle)).astype(np.float32)

    def discrepancy(before: Weights, after: Weights) -> NDArray[np.float64]:
        difference = before - after
        squared: NDArray[np.float64] = ((difference @ kernel) * difference).sum(axis=1, dtype=np.float64)
        return np.asarray(np.sqrt(np.maximum(squared, 0) / 2))

    return discrepancy
