"""Drift: whether the data have moved away from those that the champion learnt from, by how much, and in what.

Labels, lengths, words and the frozen base's own view of the texts are compared between two seeded samples. A measure
has *moved* where its whole interval is beyond the recipe's threshold; the rest is said, and claims nothing.
"""

from .against import NOBODY, STAGE, against_champion, refusal
from .leaks import all_seen, seen_of_test
from .report import NAMES, changed_words, report
from .sampling import LEARNT_FROM, Sample, sample

__all__ = [
    "LEARNT_FROM",
    "NAMES",
    "NOBODY",
    "STAGE",
    "Sample",
    "against_champion",
    "all_seen",
    "changed_words",
    "refusal",
    "report",
    "sample",
    "seen_of_test",
]
