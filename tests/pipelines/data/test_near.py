from __future__ import annotations

import numpy as np
import pytest

from pipelines.data.near import HASHES, SHINGLE, Signatures, signature


def similarity(one, other):
    """The naive one: the share of shingles in common."""
    first, second = ({text[at : at + SHINGLE] for at in range(len(text) - SHINGLE + 1)} for text in (one, other))
    return len(first & second) / len(first | second)


def texts(count, seed=1):
    draw = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in draw.integers(0, 500, 30)) for _ in range(count)]


def edited(text, words):
    """The text with its last words changed."""
    kept = text.split()
    return " ".join([*kept[:-words], *(f"new{place}" for place in range(words))])


def test_signatures_estimate_the_similarity_of_shingles():
    errors = []
    for place, text in enumerate(texts(60)):
        other = edited(text, 1 + place % 12)
        errors.append((signature(text) == signature(other)).mean() - similarity(text, other))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.06  # the standard error at 0.5 is 0.044
    assert signature("").shape == signature("abc").shape == (HASHES,)
    assert signature("abc").tolist() != signature("abd").tolist()


@pytest.fixture
def near(tmp_path):
    def near(rows, wanted=0.8):
        with Signatures(tmp_path / "signatures") as signatures:
            for start in range(0, len(rows), 7):
                part = rows[start : start + 7]
                signatures.put([text for text, _ in part], np.array([side for _, side in part], np.int8))
            return signatures.near(wanted)

    return near


def test_what_resembles_a_more_protected_text_is_found(near):
    a, b, c, d, *others = texts(60)
    rows = [
        (a, 2), (edited(a, 1), 0), (edited(a, 2), 1),
        (b, 1), (edited(b, 1), 0),
        (c, 0), (edited(c, 1), 0), (edited(c, 2), 0),
        (d, 2), (edited(d, 15), 0), (edited(d, 1), 2),
        *((text, place % 3) for place, text in enumerate(others)),
    ]  # fmt: skip
    found, alike = near(rows)
    assert found.tolist() == [-1, 2, 2, -1, 1, -1, -1, -1, -1, -1, -1] + [-1] * len(others)
    assert alike == 2  # the two that resemble c


def test_a_higher_similarity_finds_less(near):
    rows = [(text, 2) for text in texts(40)] + [
        (edited(text, 1 + place % 9), 0) for place, text in enumerate(texts(40))
    ]
    counts = [int((near(rows, wanted)[0] >= 0).sum()) for wanted in (0.7, 0.8, 0.9)]
    assert counts[0] > counts[1] > counts[2] > 0
    assert near([], 0.8) == (pytest.approx([]), 0)
