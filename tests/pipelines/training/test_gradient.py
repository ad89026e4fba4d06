"""A batch that the memory does not hold is trained on in parts, and the step is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import TrainingError
from pipelines.training.gradient import Portion

# In a process of its own: the address space is bounded when everything is loaded, so that malloc itself refuses.
SCRIPT = """
import json, resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from pathlib import Path
from pipelines.inference.base import load_base
from pipelines.recipe import Optimisation, Prompt
from pipelines.training.loop import train
from pipelines.training.shards import Rows
from pipelines.training.tuned import linear_head, tune

rows, length = 256, 60
numbers = np.random.default_rng(0)
tokens = numbers.integers(5, 60, (rows, length)).tolist()
data = Rows([str(row) for row in range(rows)], tokens, np.arange(rows) % 2, np.full(rows, length))
few = Rows(data.ids[:4], data.tokens[:4], data.labels[:4], data.lengths[:4])
base = load_base(Path(sys.argv[1]))
settings = Prompt(method="prompt-tuning", tokens=4, rate=0.1, dropout=0.2)
notes = []

def run(data, epochs=1):
    tuned = tune(base, settings, linear_head(base, 2, 7), 7)
    went = train(tuned, settings, Optimisation(epochs=epochs, batch_size=rows), 7, data, few,
                 lambda news: notes.append(news.get("note", "")))
    (prompt,) = (part for name, part in tuned.trained() if name.startswith("prompt."))
    return prompt.detach().flatten().tolist(), [loss for _, loss in went.curve]

run(few)  # what is loaded at the first step is loaded
size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
unlimited = resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]), unlimited))
parts = run(data)
resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))
notes, halved = [], notes
whole = run(data)
assert not any(notes), notes
print(json.dumps({"whole": whole, "parts": parts, "notes": [note for note in halved if note]}))
"""


@pytest.mark.slow
def test_what_the_memory_does_not_hold_is_halved(bert_folder: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT, str(bert_folder), str(24 * 2**20)], capture_output=True,
                         text=True, timeout=120, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["notes"] and found["notes"][-1].startswith("out of memory: going on with micro-batches of ")
    for whole, parts in zip(found["whole"], found["parts"], strict=True):
        assert np.allclose(whole, parts, atol=1e-4)


def test_a_portion_is_half_of_the_largest_part_and_one_row_is_the_end() -> None:
    portion, lengths = Portion(0), np.array([10, 20, 30])
    portion.halve([np.array([0, 1, 2])], lengths)
    assert portion.tokens == 45 and "45 positions" in portion.note
    portion.halve([np.array([0, 1]), np.array([2])], lengths)
    assert portion.tokens == 20
    with pytest.raises(TrainingError, match="one text of 30 positions"):
        portion.halve([np.array([2]), np.array([0])], lengths)
