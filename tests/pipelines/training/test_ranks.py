"""One, two and four workers of equal global batches tune the same prompt, and tell each other only its gradient."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, which imports everything once and is then forked for each worker.
SCRIPT = """
import json, os, sys
from datetime import timedelta
from pathlib import Path
import numpy as np, torch, torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from pipelines.inference.base import load_base
from pipelines.recipe import Optimisation, Prompt
from pipelines.training import loop
from pipelines.training.shards import Rows
from pipelines.training.tuned import tune

sent = []

class Counted(DistributedDataParallel):
    def __init__(self, module):
        super().__init__(module)
        self.register_comm_hook(None, lambda state, bucket: (sent.append(bucket.buffer().nbytes),
                                                             allreduce_hook(state, bucket))[1])

def work(rank, workers, base_folder, out):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(str(out / f"meeting-{workers}"), workers)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=workers, timeout=timedelta(seconds=60))
    loop.DistributedDataParallel = Counted
    base = load_base(base_folder)
    base.backbone.double()
    base.lm_head.double()
    numbers = np.random.default_rng(0)
    lengths = numbers.integers(2, 30, 25)  # the last batch is one row: of four workers three have none
    rows = Rows([str(row) for row in range(25)], [numbers.integers(5, 60, length).tolist() for length in lengths],
                numbers.integers(0, 2, 25), lengths)
    settings = Prompt(method="prompt-tuning", tokens=3, rate=0.1, dropout=0.1)
    tuned = tune(base, settings, {"word_ids": torch.tensor([7, 9])}, 7).double()
    went = loop.train(tuned, settings, Optimisation(epochs=2, batch_size=8), 7, rows, rows, lambda news: None)
    if rank == 0:
        ((_, prompt),) = tuned.trained()
        (out / f"{workers}.json").write_text(json.dumps({
            "prompt": prompt.flatten().tolist(), "losses": [loss for _, loss in went.curve], "steps": went.steps,
            "sent": sum(sent), "bytes": prompt.nbytes,
        }))
    dist.destroy_process_group()

for workers in (1, 2, 4):
    children = []
    for rank in range(workers):
        if not (child := os.fork()):
            work(rank, workers, Path(sys.argv[1]), Path(sys.argv[2]))
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


@pytest.mark.slow
def test_one_two_and_four_workers_tune_the_same_prompt(llama_folder: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT, str(llama_folder), str(tmp_path)], check=True, timeout=240)
    one, two, four = (json.loads((tmp_path / f"{workers}.json").read_bytes()) for workers in (1, 2, 4))
    assert one["steps"] == 8 and one["sent"] == 0
    for several in (two, four):
        assert several["prompt"] == pytest.approx(one["prompt"], rel=0, abs=1e-6)
        assert several["losses"] == pytest.approx(one["losses"], rel=0, abs=1e-6)
        assert several["sent"] == several["steps"] * several["bytes"]  # of each step the prompt's gradient, once
