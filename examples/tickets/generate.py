"""Support tickets to be routed into eight queues: made up, hard for honest reasons, the same bytes for the same seed.

    python examples/tickets/generate.py tickets.parquet --seed 17 --train 3000 --validation 600 --test 2400

Why they are hard: queues share words, two in five tickets also mention another queue's matter (what is asked for
decides), a quarter of the phrases of validation and test occur in no other split, people mistype, and 3 % of the labels
are wrong in every split, so that no model can be right about more than 97 %. About 1.2 % of rows, on top of the numbers
asked for, are malformed: a pipeline must set them aside.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent))  # found also where this file is loaded by its path

from frames import ASIDES, ASKS, CHATTER, CLOSINGS, CONTRASTS, GREETINGS, NAMES, REASONS, REFUSALS, SLOTS, STORIES
from noise import typed
from phrases import QUEUES

SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "text", "queue", "split")])
SHAPES = {"plain": 29, "story": 29, "aside": 22, "refusal": 12, "contrast": 8}  # how a ticket is built, in percent
FRESH = 0.25  # of the draws of validation and test come from phrases that no other split sees
SPLIT_OF = ("train", "train", "train", "test", "train", "validation", "train", "test")  # of a bank's phrases, in turn
NEAR = 0.8  # of the second topics come from a neighbouring queue
WRONG_LABELS = 0.03
DUPLICATES = 0.01  # half of them to the letter, half with a sentence in front
MALFORMED = 0.012
TOO_LONG = 4000  # characters


class Ticket(NamedTuple):
    """One row; `mentioned` is the queue of a second topic, if there is one."""

    text: str | None
    queue: str | None
    mentioned: str | None = None


class Writer:
    """Writes the tickets of one split; the others' own phrases are not known to it."""

    def __init__(self, rng: Random, split: str) -> None:
        self.rng = rng
        self.split = split
        self.values: dict[
            str, str
        ] = {}  # of this ticket's slots: who writes about a doorbell goes on about the doorbell

    def pick(self, bank: Sequence[str]) -> str:
        """A phrase that the training split has too, or, outside of it now and then, one of this split's own."""
        split = self.split if self.rng.random() < FRESH else "train"
        return self.rng.choice([phrase for i, phrase in enumerate(bank) if SPLIT_OF[i % len(SPLIT_OF)] == split])

    def value(self, slot: str) -> str:
        """What this ticket has in the slot."""
        if slot not in self.values:
            self.values[slot] = self.pick(SLOTS[slot])
        return self.values[slot]

    def fill(self, frame: str, **phrases: str) -> str:
        """The frame with its phrases, then its slots, filled in, and a capital at its start."""
        for name, phrase in phrases.items():
            frame = frame.replace(f"{{{name}}}", phrase)
        text = re.sub(r"{(\w+)}", lambda slot: self.value(slot[1]), frame)
        return text[0].upper() + text[1:]

    def said(self, frames: Sequence[str], queue: str) -> str:
        """One of the frames, filled with words of the queue."""
        words = QUEUES[queue]
        phrases = {name: self.pick(getattr(words, f"{name}s")) for name in ("request", "problem", "topic")}
        return self.fill(self.pick(frames), **phrases)

    def story(self, queue: str) -> str:
        """A sentence that fits the queue and several others."""
        return self.fill(self.rng.choice([story for story, queues in STORIES if queue in queues]) + ".")

    def other(self, queue: str) -> str:
        """Another queue, more often a neighbour."""
        names = QUEUES[queue].neighbours if self.rng.random() < NEAR else [name for name in QUEUES if name != queue]
        return self.rng.choice(names)

    def body(self, shape: str, queue: str, other: str) -> list[str]:
        """The sentences that carry the matter."""
        rng = self.rng
        point = self.said(ASKS if rng.random() < 0.6 else REASONS, queue)
        if shape == "plain":
            return [point] if rng.random() < 0.4 else [self.said(REASONS, queue), self.said(ASKS, queue)]
        if shape == "story":
            return [self.story(queue), self.said(ASKS, queue)]
        if shape == "contrast":
            request, refused = self.pick(QUEUES[queue].requests), self.pick(QUEUES[other].requests)
            return [self.fill(self.pick(CONTRASTS), request=request, other=refused)]
        sentences = [self.said(ASIDES if shape == "aside" else REFUSALS, other), point]
        if rng.random() < 0.4:
            sentences.reverse()
        return sentences

    def ticket(self, queue: str) -> Ticket:
        """One ticket for the queue, label still right."""
        rng = self.rng
        self.values.clear()
        shape = rng.choices(list(SHAPES), list(SHAPES.values()))[0]
        other = self.other(queue)
        sentences = self.body(shape, queue, other)
        if rng.random() < 0.25:
            sentences.insert(rng.randrange(len(sentences) + 1), self.fill(self.pick(CHATTER)))
        if rng.random() < 0.35:
            sentences.insert(0, self.pick(GREETINGS) + ",")
        if rng.random() < 0.25:
            sentences.append(f"{self.pick(CLOSINGS)}, {self.pick(NAMES)}")
        mentioned = None if shape in ("plain", "story") else other
        return Ticket(typed(" ".join(sentences), rng), queue, mentioned)


def plain(text: str) -> str:
    """What is left of a text without case, spaces and punctuation: equal for texts a reader would call the same."""
    return re.sub(r"\W+", "", text).casefold()


def well_formed(writer: Writer, count: int, taken: set[str]) -> list[Ticket]:
    """`count` tickets, some of them sent twice, none whose text is in `taken`; adds theirs to it."""
    rng = writer.rng
    shares = [queue.share for queue in QUEUES.values()]
    tickets: list[Ticket] = []
    seen: set[str] = set()
    copies = round(count * DUPLICATES)
    while len(tickets) < count - copies:
        ticket = writer.ticket(rng.choices(list(QUEUES), shares)[0])
        key = plain(ticket.text)
        if key not in taken and key not in seen:
            seen.add(key)
            tickets.append(ticket)
    for i, ticket in enumerate(rng.sample(tickets, copies)):
        tickets.append(ticket if i % 2 else ticket._replace(text=f"Sending this again. {ticket.text}"))
    taken |= seen
    return mislabelled(tickets, rng)


def mislabelled(tickets: list[Ticket], rng: Random) -> list[Ticket]:
    """The tickets with some labels wrong, the way people get them wrong: by the second topic, or by a neighbour."""
    wrong = set(rng.sample(range(len(tickets)), round(len(tickets) * WRONG_LABELS)))
    return [
        ticket._replace(queue=ticket.mentioned or rng.choice(QUEUES[ticket.queue].neighbours)) if i in wrong else ticket
        for i, ticket in enumerate(tickets)
    ]


def malformed(writer: Writer, count: int) -> list[Ticket]:
    """`count` rows with one of five faults, in turn."""
    tickets = []
    for i in range(count):
        good = writer.ticket(writer.rng.choice(list(QUEUES)))
        faults = (
            good._replace(text=None),
            good._replace(text=""),
            good._replace(text=f"{good.text} " * (TOO_LONG // len(good.text) + 1)),
            good._replace(queue="general"),
            good._replace(queue=None),
        )
        tickets.append(faults[i % len(faults)])
    return tickets


def generate(seed: int = 17, train: int = 3000, validation: int = 600, test: int = 2400) -> pa.Table:
    """A table of so many well-formed tickets per split and about 1.2 % malformed ones: id, text, queue, split."""
    rows = []
    taken: set[str] = set()
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        writer = Writer(Random(f"{seed} {split}"), split)
        tickets = well_formed(writer, count, taken) + malformed(writer, round(count * MALFORMED))
        writer.rng.shuffle(tickets)
        rows += [
            {"id": f"{split}-{i:05d}", "text": ticket.text, "queue": ticket.queue, "split": split}
            for i, ticket in enumerate(tickets)
        ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the Parquet file that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write made-up support tickets as Parquet.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--train", type=int, default=3000, help="well-formed tickets of the training split")
    parser.add_argument("--validation", type=int, default=600, help="well-formed tickets of the validation split")
    parser.add_argument("--test", type=int, default=2400, help="well-formed tickets of the test split")
    options = parser.parse_args(arguments)
    table = generate(options.seed, options.train, options.validation, options.test)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_name(options.out.name + ".partial")
    pq.write_table(table, partial)
    partial.replace(options.out)
    print(f"{options.out}: {table.num_rows} rows")


if __name__ == "__main__":
    main()
