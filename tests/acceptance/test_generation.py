"""A stranger's texts: a prompt that writes, from the recipe to a verdict, a page, and the same answer everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

RECIPE = """
name = "replies"
[base]
name = "stranger/tiny-llama"
sources = ["file://BASE"]
[data]
path = "talk.jsonl"
text = "asked"
target = "reply"
[template]
text = "{text} :"
max_tokens = 24
[head]
kind = "generation"
max_new_tokens = 12
[training]
epochs = 4
batch_size = 16
[prompt]
method = "prompt-tuning"
tokens = 4
rate = 0.3
[baselines.lora]
rate = 1e-2
[baselines.zero_shot]
[gates]
metric = "rouge_l"
resamples = 1000
non_inferior = [{ to = "lora", margin = 60 }]
[gates.budgets]
trainable_params = 1000
"""


PACKAGED = """
import json, sys, mlflow, pandas
from pipelines.settings import tracking_uri
mlflow.set_tracking_uri(tracking_uri())
found = mlflow.pyfunc.load_model("models:/replies/1").predict(pandas.DataFrame({"text": sys.argv[1:]}))
print(json.dumps(found.to_dict("list")))
"""


@pytest.fixture
def texts(fresh: Any, llama_folder: Path, tickets: Callable[..., Any]) -> Any:
    """A workshop whose base writes, with questions that have two right answers each."""
    rows = [
        {"asked": f"{ticket.text} {number}", "reply": reply}
        for number, ticket in enumerate(tickets(90, 3))
        for reply in (ticket.label, f"my {ticket.label}")
    ]
    (fresh.folder / "talk.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"asked": "why", "reply": None}])))
    (fresh.folder / "replies.toml").write_text(RECIPE.replace("BASE", str(llama_folder)))
    return fresh


def test_a_recipe_of_texts_runs_from_end_to_end(texts: Any) -> None:
    record = texts.promptmint("run", "replies.toml", "--json").json
    assert record["version"] == 1 and record["power"] == []
    assert record["data"]["reasons"] == {"reply is null": 1}
    scores = {method: each for method, each in record["scores"].items() if each}
    assert set(scores) == {"prompt", "lora", "zero_shot"}
    for each in scores.values():
        assert each["metric"] == "rouge_l" and each["low"] <= each["score"] == each["rouge_l"] <= each["high"]
        assert each["references"] == 2 * each["n"] == record["data"]["splits"]["test"]
    assert [gate["verdict"] for gate in record["gates"]] == ["passed", "passed"] and record["verdict"] == "passed"
    assert texts.promptmint("run", "replies.toml", "--json").json["unchanged"]

    asked = ["the invoice is wrong 7", "my login again 8"]
    said = texts.promptmint("predict", "replies@1", *asked, "--json").json["answers"]
    assert [each["text"] for each in said] == asked
    packaged = subprocess.run(
        [sys.executable, "-c", PACKAGED, *asked],
        cwd=texts.folder,
        env=texts.environment(),
        capture_output=True,
        check=True,
    )  # fmt: skip
    assert json.loads(packaged.stdout.splitlines()[-1]) == {"text": [each["answer"] for each in said]}

    assert texts.promptmint("report", "replies@1", "--html", "page.html").code == 0
    page = (texts.folder / "page.html").read_text()
    assert "What it writes" in page and "Reference: " in page and "ROUGE-L" in page and "Macro F1" not in page
    assert texts.promptmint("export", "replies@1", "--to", ".", "--layout", "peft").code == 0
    assert (
        json.loads((texts.folder / "replies-v1-peft" / "promptmint.json").read_text())["head"]["kind"] == "generation"
    )

    assert texts.promptmint("promote", "replies", "1", "--why", "it writes").code == 0  # drift is from the champion's
    longer = [
        json.dumps({"asked": f"please tell me {n} times: the invoice is wrong", "reply": "billing"}) for n in range(90)
    ]
    with (texts.folder / "talk.jsonl").open("a") as talk:
        talk.write("\n" + "\n".join(longer))
    recipe = texts.folder / "replies.toml"
    recipe.write_text(recipe.read_text() + '[drift]\nthen = "refuse"\nembedded = 50\n')
    moved = texts.promptmint("run", "replies.toml", "--json").json
    measured = [each["name"] for each in moved["drift"]["measures"]]
    assert moved["verdict"] == "refused" and measured == ["length", "vocabulary", "unseen", "embedding"]
    assert "vocabulary moved" in moved["reason"] and "train" not in moved["seconds"]
