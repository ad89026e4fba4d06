"""Drift: how far the data may have moved from the champion's before something happens, and what."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .section import Fraction, Section


class Drift(Section):
    """`[drift]`: the training and validation examples held against those of the champion's run.

    No distance can exceed the share of the texts (`vocabulary` and `unseen`: of the words) that were replaced: 0.1 asks
    for a tenth of them at least. A threshold of 1 is never exceeded: the distance is told, and no more.
    """

    then: Literal["note", "refuse", "refresh"] = "note"  # told; refused before training; baselines are trained anew
    labels: Fraction = 0.1  # total variation of the labels' shares
    length: Fraction = 0.1  # Kolmogorov-Smirnov, of the texts' lengths in characters
    vocabulary: Fraction = 0.02  # Jensen-Shannon divergence of the words' frequencies, base 2
    unseen: Fraction = 0.02  # share of words that the champion's texts lack, beyond what is usual among those
    embedding: Fraction = 0.1  # maximum mean discrepancy of the frozen base's mean-pooled states
    sample: int = Field(2000, ge=50, le=20_000)  # texts of either side
    embedded: int = Field(500, ge=0, le=5000)  # of these, run through the base; 0: no embedding distance
    confidence: float = Field(0.95, gt=0.5, lt=1)  # that no distance is claimed wrongly, all of them together
    resamples: int = Field(1000, ge=1000, le=100_000)
