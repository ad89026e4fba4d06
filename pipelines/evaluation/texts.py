"""Scores of texts that were written: each beside its references, with what every metric needs to know of it.

An example is an input, and what several rows say of the same input are its references: the one that fits best counts.
`words` are runs of letters and digits after NFKC and casefolding: case, punctuation and spacing count for nothing.

exact_match     1 where the words are those of a reference, in their order
token_f1        harmonic mean of the shares of words in common, order aside (Rajpurkar et al., "SQuAD: 100,000+
                Questions for Machine Comprehension of Text", EMNLP 2016, section 6.1; here articles count too)
rouge_l         F1 of the longest common subsequence of words (Lin, "ROUGE: A Package for Automatic Evaluation of
                Summaries", 2004), by rouge-score, without its stemmer, which knows English alone
bleu            of the whole corpus (Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation",
                ACL 2002), by sacrebleu at its defaults (Post, "A Call for Clarity in Reporting BLEU Scores", 2018). An
                example has the counts that a corpus sums: n-grams right, n-grams, n = 1 to 4, and both lengths

So gates can draw examples anew for any metric, and no text is ever written again for another metric.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.evaluation.scores import in_one_order
from pipelines.store.store import Store
from pipelines.store.trees import load_bytes, save_bytes

METRICS = {"bleu": "BLEU", "rouge_l": "ROUGE-L", "token_f1": "Token F1", "exact_match": "Exact match"}
OF_EXAMPLES = ("exact_match", "token_f1", "rouge_l")  # whose score of a corpus is the mean over its examples
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, eq=False)
class TextScores:
    """One row per example, all of length n.

    Attributes:
        ids: names of the inputs.
        texts: what was written.
        references: of each, in alphabetical order.
        measures: `{metric: [n]}` of `OF_EXAMPLES`, 0..1.
        bleu: [n, 10] the counts that BLEU sums: 4 of n-grams right, 4 of n-grams, the text's length, the reference's.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    measures: dict[str, NDArray[np.float64]]
    bleu: NDArray[np.int64]

    def at(self, rows: Sequence[int]) -> TextScores:
        """The scores of some rows, in that order."""
        places = list(rows)
        return TextScores(
            tuple(self.ids[row] for row in places), tuple(self.texts[row] for row in places),
            tuple(self.references[row] for row in places),
            {name: values[places] for name, values in self.measures.items()}, self.bleu[places],
        )  # fmt: skip

    def of_each(self, metric: str) -> NDArray[np.float64]:
        """How good each text is by a metric, [n], 0..1; by BLEU: of a sentence, which orders texts and no more."""
        if metric in OF_EXAMPLES:
            return self.measures[metric]
        return np.array([bleu_of(counts, sentence=True) for counts in self.bleu])

    def __len__(self) -> int:
        return len(self.ids)


def corpus_score(scores: TextScores, metric: str) -> float:
    """How good the texts are together, 0..1."""
    return float(scores.measures[metric].mean()) if metric in OF_EXAMPLES else bleu_of(scores.bleu.sum(0))


def from_texts(examples: Mapping[str, Sequence[str]], texts: Sequence[str]) -> TextScores:
    """The scores of `texts`, one for each of `{input: references}` and in their order; sorted by input.

    Raises:
        DataError: there are none, or not as many texts as examples.
    """
    if not 0 < len(examples) == len(texts):
        raise DataError(f"Cannot score {len(texts)} texts for {len(examples)} examples: there must be one for each.")
    rows = sorted(zip(examples, texts, examples.values(), strict=True))
    references = tuple(tuple(sorted(set(each))) for *_, each in rows)
    said = tuple(text for _, text, _ in rows)
    pairs = list(zip(said, references, strict=True))
    measured = {"exact_match": exact_match, "token_f1": token_f1, "rouge_l": rouge_l}
    measures = {name: np.array([measure(*pair) for pair in pairs]) for name, measure in measured.items()}
    bleu = np.array([bleu_counts(*pair) for pair in pairs], np.int64)
    return TextScores(tuple(name for name, *_ in rows), said, references, measures, bleu)


def save_texts(store: Store, scores: TextScores) -> str:
    """The digest under which the scores now lie in the store, as one Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"id": scores.ids, "text": scores.texts, "references": scores.references, **scores.measures}
    table = pa.table({**{name: pa.array(column) for name, column in columns.items()}, "bleu": scores.bleu.tolist()})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return save_bytes(store, file.getvalue())


def load_texts(store: Store, digest: str) -> TextScores:
    """The scores with this digest. Raises `NotInStore`, `CorruptObject`, or `DataError` where it is something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(load_bytes(store, digest)))
        measures = {name: table.column(name).to_numpy() for name in OF_EXAMPLES}
        ids, texts, references, bleu = (table.column(name).to_pylist() for name in ("id", "text", "references", "bleu"))
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"The object {digest!r} in {store.uri} is no table of written texts ({error}).") from None
    return TextScores(tuple(ids), tuple(texts), tuple(map(tuple, references)), measures, np.array(bleu, np.int64))


def paired_texts(a: TextScores, b: TextScores) -> tuple[TextScores, TextScores]:
    """The same two scores, row i of both about the same example.

    Raises:
        DataError: they do not cover the same examples, or hold them against different references.
    """
    first, second = in_one_order(a, b)
    if first.references != second.references:
        raise DataError("Two models were scored against different references. Score both on the same test split.")
    return first, second


# The metrics, of one text and its references.


def words(text: str) -> list[str]:
    """The runs of letters and digits in a text, after NFKC and casefolding."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def exact_match(text: str, references: Sequence[str]) -> float:
    """Whether the words of a text are those of a reference, 0 or 1."""
    return float(any(words(text) == words(reference) for reference in references))


def token_f1(text: str, references: Sequence[str]) -> float:
    """The F1 of a text's words, each as often as it occurs, against the reference that fits best; 0..1."""
    said = Counter(words(text))
    found = []
    for reference in references:
        wanted = Counter(words(reference))
        common, length = (said & wanted).total(), said.total() + wanted.total()
        found.append(2 * common / length if length else 1.0)  # two texts without words say the same
    return max(found)


def rouge_l(text: str, references: Sequence[str]) -> float:
    """ROUGE-L's F1 against the reference that fits best, 0..1."""
    return float(_rouge().score_multi(list(references), text)["rougeL"].fmeasure)


def bleu_counts(text: str, references: Sequence[str]) -> list[int]:
    """The ten counts of a text, as `TextScores.bleu` has them."""
    told = _bleu().sentence_score(text, list(references))
    return [*told.counts, *told.totals, told.sys_len, told.ref_len]


def bleu_of(counts: NDArray[Any], sentence: bool = False) -> float:
    """The BLEU of ten counts, 0..1: of a corpus those of its texts summed; with `sentence` of a text by itself."""
    from sacrebleu.metrics.bleu import BLEU

    told = [int(count) for count in counts]
    score = BLEU.compute_bleu(told[:4], told[4:8], told[8], told[9], smooth_method="exp", effective_order=sentence)
    return float(score.score) / 100


def bleu_of_each(counts: NDArray[Any]) -> NDArray[np.float64]:  # [m]
    """`bleu_of` of many corpora, [m, 10], in one pass: what thousands of draws ask for. A test holds one to the other.

    Where no n-gram of an order is right its share is smoothed: half of one is right of the first such order, then a
    quarter, an eighth (sacrebleu's "exp").
    """
    score = np.zeros(len(counts))
    some = counts[:, :4].any(1) & counts[:, 4:8].all(1)  # nothing right, or no n-gram of an order written: 0
    right, grams, length, wanted = counts[some, :4], counts[some, 4:8], counts[some, 8], counts[some, 9]
    smoothed = np.where(right > 0, right, 0.5 ** np.cumsum(right == 0, axis=1))
    score[some] = np.exp(np.log(smoothed / grams).mean(1) + np.minimum(0, 1 - wanted / length))
    return score


def bleu_signature() -> str:
    """How sacrebleu computes it here, its version included: to be told with every figure."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    metric.corpus_score(["a"], [["a"]])  # a signature tells how many references there were, and wants to have seen some
    signature: str = metric.get_signature().format()
    return signature.replace("nrefs:1", "nrefs:var")


class _Words:
    """What rouge-score asks for words."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)
