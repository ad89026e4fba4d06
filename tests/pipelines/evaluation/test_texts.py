"""Metrics of texts are those of the field's libraries, and what they prove is judged as accuracy is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.evaluation import text_bootstrap
from pipelines.evaluation.gates import judge
from pipelines.evaluation.metrics import text_summary
from pipelines.evaluation.scores import among
from pipelines.evaluation.text_bootstrap import text_difference, text_interval
from pipelines.evaluation.texts import (
    METRICS,
    TextScores,
    bleu_of,
    bleu_of_each,
    bleu_signature,
    corpus_score,
    exact_match,
    from_texts,
    load_texts,
    paired_texts,
    rouge_l,
    save_texts,
    token_f1,
)
from pipelines.recipe import Gates
from pipelines.store.local import LocalStore

WORDS = "the eagle is a cheap riverside pub with italian food near cafe adriatic and families are welcome".split()  # noqa: SIM905


def written(seed: int, n: int = 60, wrong: float = 0.3) -> TextScores:
    """Texts that keep most words of the first of up to three references; the examples are the same for every seed."""
    draw, own = np.random.default_rng(0), np.random.default_rng(seed)
    examples, texts = {}, []
    for row in range(n):
        references = [" ".join(draw.choice(WORDS, 12)) for _ in range(1 + row % 3)]
        examples[f"{row:03d}"] = references
        texts.append(" ".join(str(own.choice(WORDS)) if own.random() < wrong else w for w in references[0].split()))
    return from_texts(examples, texts)


def test_the_corpus_has_the_bleu_that_sacrebleu_gives() -> None:
    from sacrebleu.metrics.bleu import BLEU

    scores = written(1)
    most = max(map(len, scores.references))
    streams = [[own[place] if place < len(own) else None for own in scores.references] for place in range(most)]
    assert corpus_score(scores, "bleu") == pytest.approx(BLEU().corpus_score(list(scores.texts), streams).score / 100)
    assert bleu_signature().startswith("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_words_decide_in_any_script_and_the_best_reference_counts() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    said, wanted = "The Eagle, a cheap pub!", ["no", "an eagle is a cheap riverside pub"]
    plain = RougeScorer(["rougeL"]).score(wanted[1], said)["rougeL"].fmeasure
    assert rouge_l(said, wanted) == pytest.approx(plain)
    assert rouge_l("Кафе у реки", ["кафе у моря"]) == pytest.approx(2 / 3)
    assert token_f1("a b b", ["b a", "c"]) == pytest.approx(0.8) and token_f1("", ["!"]) == 1.0 != token_f1("", ["a"])
    assert exact_match(" THE  eagle.", ["x", "the Eagle"]) == 1.0 and exact_match("eagle the", ["the eagle"]) == 0.0


def test_scores_come_back_from_the_store_and_pair_only_with_their_own(tmp_path) -> None:
    store, scores = LocalStore(tmp_path), written(1)
    back = load_texts(store, save_texts(store, scores))
    assert (back.ids, back.texts, back.references) == (scores.ids, scores.texts, scores.references)
    assert np.array_equal(back.bleu, scores.bleu) and corpus_score(back, "rouge_l") == corpus_score(scores, "rouge_l")
    one, other = paired_texts(back, written(2).at(range(59, -1, -1)))
    assert one.ids == other.ids
    with pytest.raises(DataError, match="different examples"):
        paired_texts(scores, among(scores, scores.ids[:9]))
    with pytest.raises(DataError, match="2 texts for 1 examples"):
        from_texts({"a": ["x"]}, ["x", "y"])


@pytest.mark.parametrize("metric", METRICS)
def test_a_text_that_is_as_good_is_level_and_a_worse_one_is_refused(metric: str) -> None:
    good, equal, worse = written(1, 300), written(2, 300), written(3, 300, wrong=0.6)
    level = text_difference(good, equal, metric, 0.95, 400, 0).interval
    assert level.low < 0 < level.high and level.low <= level.estimate <= level.high
    low, high = text_interval(good, metric)
    assert low <= corpus_score(good, metric) <= high
    gates = Gates.model_validate(
        {
            "metric": metric,
            "resamples": 1000,
            "non_inferior": [{"to": "lora", "margin": 20}, {"to": "full", "margin": 1}],
        }
    )
    told = judge(gates, {"prompt": worse, "lora": worse, "full": good}, {}, seed=0)
    verdicts = {gate.name: gate.verdict for gate in told.gates}
    refused = "inconclusive" if metric == "exact_match" else "refused"  # hardly any text is right there
    assert verdicts == {"non-inferior to lora": "passed", "non-inferior to full": refused}
    assert all(gate.p_value is None for gate in told.gates) and METRICS[metric] in told.gates[1].reason


def test_two_corpora_that_never_differ_prove_no_more_than_their_size() -> None:
    """The imagined example: with 60 texts that are equal word by word, a margin of a point is not proven."""
    scores = written(1)
    narrow, wide = (text_difference(written(1, n), written(1, n), "bleu", 0.95, 400, 0).interval for n in (600, 60))
    assert wide.low < narrow.low < 0 < narrow.high < wide.high and wide.estimate == 0
    summary = text_summary(scores, "bleu")
    assert summary["score"] == summary["bleu"] and summary["n"] == 60 and summary["references"] == 120


def test_many_corpora_at_once_have_the_bleu_of_each() -> None:
    rng = np.random.default_rng(0)
    grams = rng.integers(0, 6, (2000, 4))  # now and then none
    right = rng.integers(0, grams + 1)  # now and then none, of one order or of all
    counts = np.hstack([right, grams, rng.integers(1, 9, (2000, 2))])  # texts shorter and longer than the references
    each = np.array([bleu_of(row) for row in counts])
    assert np.allclose(bleu_of_each(counts), each, rtol=1e-12, atol=0) and 0 < np.mean(each == 0) < 1


def test_draws_sum_what_a_multinomial_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bootstrap, "BLOCK", 1000)  # blocks of 16 draws, the last of them shorter
    counts = written(1).bleu
    ours = text_bootstrap._sums(counts, 10_001, 0)
    plain = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=10_001) @ counts
    assert np.array_equal(ours, ours.round())
    assert np.all(np.abs(ours.mean(0) - plain.mean(0)) <= 5 * plain.std(0) / 70)
    assert np.allclose(np.cov(ours.T), np.cov(plain.T), rtol=0.1, atol=0.1 * plain.var(0).max())


def test_10_000_resamples_of_10_000_texts_bound_bleu_in_a_second_or_two() -> None:
    one, other = (written(seed, 100).at(np.arange(10_000) % 100) for seed in (1, 2))
    seconds = []
    for seed in range(2):
        start = time.process_time()  # not the clock: others may compute here, too
        text_difference(one, other, "bleu", 0.95, 10_000, seed)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 2  # 0.9 on the machine of docs/LOG.md: room for one half as fast
