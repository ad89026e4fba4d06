"""Which rows share a pass, so that passes and padding together cost the least.

This file travels inside every packaged model: it imports nothing of promptmint by its absolute name.
"""

from __future__ import annotations

from collections.abc import Sequence


def buckets(lengths: Sequence[int], most_rows: int, pass_cost: int) -> list[list[int]]:
    """Places in `lengths`, every one once, by pass, longest first: the cheapest way to share them out.

    A pass costs its rows times its longest row, in token positions, and `pass_cost` of them whatever it holds. Among
    rows sorted by length the cheapest passes are runs of neighbours, so that the best end of each run is found from
    those before it.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    best = [(0, 0)]  # what the first rows cost in all, and where their last pass starts
    for end in range(1, len(order) + 1):
        starts = range(max(0, end - most_rows), end)
        best.append(min((best[s][0] + pass_cost + (end - s) * lengths[order[s]], s) for s in starts))
    found, end = [], len(order)
    while end:
        start = best[end][1]
        found.append(order[start:end])
        end = start
    return found[::-1]
