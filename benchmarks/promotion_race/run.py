"""Whether many processes that promote at once leave one champion.

    python benchmarks/promotion_race/run.py --writers 32 [--races 1] [--store folder|s3] [--keep]
    python benchmarks/promotion_race/run.py --report                                               what is kept here

A ledger with one passed version per writer, in a folder and in a bucket on a server that honours conditional puts
(moto's). Every writer is a process of its own: it reads the ledger, waits until all have, and promotes its version on
the state that it read. One entry may follow; everybody else must be refused with a message that names who was first.

The last line is the worst of all races: the most champions, entries and gaps, the fewest clear refusals. The exit code
is 1 unless that is one champion, WRITERS + 1 entries, WRITERS - 1 refusals and no gap. With --keep the races are kept
in results/, one file that is never edited.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.errors import PromptmintError
from pipelines.promotion.ledger import promote, read, register, state
from pipelines.store.opening import open_store

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.kept import another, keep

RESULTS = Path(__file__).parent / "results"
NAME = "contested"
PATIENCE_S = 300


def main() -> None:
    """Hold the races and say how the worst of them ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, default=32)
    parser.add_argument("--races", type=int, default=1, help="per store")
    parser.add_argument("--store", choices=("folder", "s3"), help="both, unless one is named")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    races = []
    with tempfile.TemporaryDirectory() as folder, s3_server() as bucket:
        for store, place in (("folder", f"file://{folder}"), ("s3", bucket)):
            for number in range(arguments.races if arguments.store in (None, store) else 0):
                ended = race(f"{place}/{number}", arguments.writers)
                races.append({"store": store, **ended})
                print(f"{store}: {json.dumps(ended)}", flush=True)
    if arguments.keep:
        result = {"writers": arguments.writers, "races": races}
        keep(another(RESULTS, f"race-{arguments.writers}"), result, ("promptmint", "boto3", "moto"))
    choose = {"champions": max, "ledger_entries": max, "refusals": min, "gaps": max}
    worst = {figure: worse(each[figure] for each in races) for figure, worse in choose.items()}
    print(json.dumps(worst))
    writers = arguments.writers
    raise SystemExit(worst != {"champions": 1, "ledger_entries": writers + 1, "refusals": writers - 1, "gaps": 0})


def race(uri: str, writers: int) -> dict[str, Any]:
    """`{champions, ledger_entries, refusals, gaps, seconds, overlapping}` of one race in a new ledger.

    `seconds` pass from the first start to the last answer; `overlapping` writers had started before the winner ended.
    """
    store = open_store(uri)
    for version in range(1, writers + 1):
        register(
            store, NAME, version, prompt_digest=f"{version:064x}", verdict="passed", run_key=f"run-{version}",
            who="promptmint", why="scored",
        )  # fmt: skip
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.promotion.ledger", "pipelines.store.s3", "boto3"])
    start, answers = context.Barrier(writers), context.Queue()
    racers = [context.Process(target=run, args=(uri, version, start, answers)) for version in range(1, writers + 1)]
    for racer in racers:
        racer.start()
    told = [answers.get(timeout=PATIENCE_S) for _ in racers]
    for racer in racers:
        racer.join()
    prefix = f"ledger/{NAME}/"
    numbers = [int(key.removeprefix(prefix).removesuffix(".json")) for key in store.keys(prefix)]
    entries = read(store, NAME)
    crowned = [entry for entry in entries if entry.action == "promoted"]
    first = [f"{entry.who!r} wrote entry {entry.sequence} of {NAME!r} first (promoted version " for entry in crowned]
    won = min((ended for _, ended, refusal in told if refusal is None), default=0.0)
    return {
        "champions": len({entry.version for entry in crowned}),
        "ledger_entries": len(numbers),
        "refusals": sum(refusal is not None and refusal.startswith(tuple(first[:1])) for *_, refusal in told),
        "gaps": max(numbers) - len(numbers),
        "seconds": round(max(ended for _, ended, _ in told) - min(began for began, *_ in told), 3),
        "overlapping": sum(began < won for began, *_ in told),
    }


def run(uri: str, version: int, start: Any, answers: Any) -> None:
    """One writer: decide on what the ledger says, wait for the others, promote; answer with the refusal, if any."""
    store = open_store(uri)
    seen = state(read(store, NAME)).sequence
    start.wait(PATIENCE_S)
    began, refusal = time.monotonic(), None
    try:
        promote(store, NAME, version, who=f"writer-{version}", why=f"{version} is best", expected=seen)
    except PromptmintError as error:
        refusal = str(error)
    answers.put((began, time.monotonic(), refusal))


@contextmanager
def s3_server() -> Iterator[str]:
    """The URI of a bucket on a server of our own, and the environment in which boto3 finds it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "PROMPTMINT_S3_ENDPOINT": f"http://{host}:{port}", "PROMPTMINT_S3_PATH_STYLE": "true",
        "AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": host, "no_proxy": host,
    }  # fmt: skip
    os.environ.pop("AWS_PROFILE", None)
    try:
        boto3.client("s3", endpoint_url=os.environ["PROMPTMINT_S3_ENDPOINT"]).create_bucket(Bucket="race")
        yield "s3://race"
    finally:
        server.stop()


def report() -> None:
    """Every race that is kept."""
    print("\nRaces: writers that promote at once, and what they leave")
    for path in sorted(RESULTS.glob("race-*.json")):
        result = json.loads(path.read_bytes())
        for each in result["races"]:
            figures = ", ".join(f"{figure} {value}" for figure, value in each.items() if figure != "store")
            print(f"  {each['store']:<8} writers {result['writers']}, {figures}")


if __name__ == "__main__":
    main()
