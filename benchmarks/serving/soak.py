"""Ten minutes at twice the load that a server can bear: does it refuse the excess, answer the rest, and keep its size?

    python benchmarks/serving/soak.py [--minutes 10] [--save]

A real `promptmint serve` answers for the toy prompts of examples/serve_and_swap.py. First its load is found:
what comes back when four callers ask without a pause and nothing is refused. Then requests arrive at twice that rate,
each when its time has come, whether or not those before it have been answered, as strangers' would: an open loop, so
that a slow server cannot slow its own load down. Each is a batch of 32 texts for two prompts. Every ten seconds the
resident memory of the server is read.

The run fails, with exit code 1, where a request gets neither its answers nor a 429, where the server does not end with
0, where nothing was refused, or where its memory grew: the median of the last third of the readings may lie at most
20 MB above that of the first.

--save keeps every reading, with versions and machine, in results/. The last line is one JSON object:

    minutes               that the load lasted
    sustainable_rows_s    texts answered in a second, by as many callers as the queue bears
    offered_rows_s        texts asked in a second, twice as many
    requests              sent; accepted (200), refused (429) and failed (anything else) add up to them
    p50_ms, p95_ms, p99_ms    from when a request was to be sent to its answer, of the accepted ones
    growth_mb             of resident memory, from the first third of the readings to the last
    passed                whether all of it held
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.kept import another, keep  # noqa: E402
from examples import serve_and_swap as shop  # noqa: E402

ROWS = 32  # in a request: few connections carry a heavy load
CALLERS = 64  # that wait for an answer at once; more requests than that wait for their turn here, and are timed
OVER = 2.0
ALLOWED_MB = 20.0
PROBE_S = 15.0
READ_EVERY_S = 10.0
PATIENCE_S = 60


def main() -> None:
    """Serve, load, print, and end with 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    disable_progress_bar()
    for name in [name for name in os.environ if name.startswith(("PROMPTMINT_", "MLFLOW_TRACKING_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="promptmint-soak-") as scratch:
        os.environ |= {"PROMPTMINT_HOME": f"{scratch}/home", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
        print("minting prompts on a toy base", flush=True)
        shop.made(Path(scratch))
        server, url = shop.started(Path(scratch), every="10")
        try:
            rate = sustainable(url)
            print(
                f"{rate * ROWS:.0f} texts a second can be borne; {OVER} times as many for {arguments.minutes} minutes"
            )
            load, readings = soaked(url, server.pid, OVER * rate, 60 * arguments.minutes)
            server.send_signal(signal.SIGTERM)
            code = server.wait(PATIENCE_S)
        finally:
            server.kill()
            server.wait()
    result = summary(load, readings, arguments.minutes, rate, code)
    if arguments.save:
        kept = {"result": result, "readings": readings, "server_exit_code": code}
        print(f"kept in {keep(another(Path(__file__).parent / 'results', 'soak'), kept).relative_to(ROOT)}")
    print(json.dumps(result))
    if not result["passed"]:
        sys.exit(1)


# The load.


class Load:
    """Callers that send each request when its time has come, and note what came back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []  # of the accepted ones
        self.due: queue.Queue[float | None] = queue.Queue()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(seed,)) for seed in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Return when every request that was due has its answer."""
        for _ in self._threads:
            self.due.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S) as http:
            while (due := self.due.get()) is not None:
                status = asked(http, rng)
                with self._lock:
                    self.statuses[status] += 1
                    if status == 200:
                        self.seconds.append(time.perf_counter() - due)


def asked(http: httpx.Client, rng: random.Random) -> int:
    """The status of one request; 0 where no whole answer came."""
    rows = [
        {"prompt": rng.choice(("orchard", "harbour")), "text": " ".join(rng.choices(shop.WORDS, k=rng.randint(2, 12)))}
        for _ in range(ROWS)
    ]
    try:
        answer = http.post("/v1/batch", json={"rows": rows})
        whole = answer.status_code != 200 or len(answer.json()["answers"]) == ROWS
        return answer.status_code if whole else 0
    except (httpx.HTTPError, ValueError, KeyError):
        return 0


def sustainable(url: str) -> float:
    """Requests answered in a second by a queue that is never empty and never full: callers who wait for each answer."""
    done = Counter[int]()
    over = time.perf_counter() + PROBE_S

    def work(seed: int) -> None:
        rng = random.Random(seed)
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
            while time.perf_counter() < over:
                done[asked(http, rng)] += 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if set(done) != {200}:
        raise SystemExit(f"Four callers already met {dict(done)}: there is no load that this server bears.")
    return done[200] / (time.perf_counter() - start)


def soaked(url: str, pid: int, rate: float, seconds: float) -> tuple[Load, list[tuple[float, float]]]:
    """What came back from so many requests a second, and the server's resident megabytes by the second."""
    process, readings = psutil.Process(pid), []
    load = Load(url)
    start = time.perf_counter()
    sent, read = 0, 0.0
    while (now := time.perf_counter() - start) < seconds:
        while sent < now * rate:
            load.due.put(start + sent / rate)
            sent += 1
        if now >= read:
            readings.append((round(now, 1), process.memory_info().rss / 1e6))
            print(f"{now:6.0f} s  {readings[-1][1]:7.1f} MB  {dict(load.statuses)}", flush=True)
            read += min(READ_EVERY_S, seconds / 12)
        time.sleep(0.5 / rate)
    load.finish()
    return load, readings


# What it amounts to.


def summary(
    load: Load, readings: Sequence[tuple[float, float]], minutes: float, rate: float, code: int
) -> dict[str, Any]:
    """The figures of a run, and whether it passed."""
    third = len(readings) // 3
    megabytes = [reading for _, reading in readings]
    growth = statistics.median(megabytes[-third:]) - statistics.median(megabytes[:third])
    accepted, refused = load.statuses[200], load.statuses[429]
    failed = load.statuses.total() - accepted - refused
    ordered = sorted(1000 * each for each in load.seconds)
    return {
        "minutes": minutes,
        "sustainable_rows_s": round(rate * ROWS, 1),
        "offered_rows_s": round(OVER * rate * ROWS, 1),
        "requests": load.statuses.total(),
        "accepted": accepted,
        "refused": refused,
        "failed": failed,
        **{f"p{share}_ms": round(shop.quantile(ordered, share / 100), 1) for share in (50, 95, 99)},
        "growth_mb": round(growth, 1),
        "passed": failed == 0 and refused > 0 and code == 0 and growth <= ALLOWED_MB,
    }


if __name__ == "__main__":
    main()
