"""A prompt that learns to write: tuned, folded into its artifact, and writing the same wherever it is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from pipelines.digests import digest_file, digest_files
from pipelines.errors import ArtifactError, DataError, RecipeError
from pipelines.inference.base import Base, load_base
from pipelines.inference.engine import Engine
from pipelines.inference.predictor import Predictor, load_predictor
from pipelines.prompts.artifact import read_proof, write_proof
from pipelines.prompts.mint import mint
from pipelines.prompts.writer import writing_head
from pipelines.recipe import Head, Optimisation, Prompt
from pipelines.tokens.targets import target_ids
from pipelines.training.gradient import Portion, backward, cross_entropy
from pipelines.training.job import TrainJob
from pipelines.training.loop import texts_of, train
from pipelines.training.selection import Selection
from pipelines.training.shards import TextRows
from pipelines.training.tuned import Tuned, tune

ASKED = ("the invoice is wrong", "my password again", "please help me with my profile today", "my refund")
SAID = ("billing", "account", "an account of yours", "billing")
SHARED = Optimisation(epochs=12, batch_size=4)


def rows_for(folder: Path, times: int = 4) -> TextRows:
    """Questions with their answers, each several times."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked, said = list(ASKED) * times, list(SAID) * times
    tokens, targets = tokenizer(asked)["input_ids"], target_ids(tokenizer, folder, said)
    lengths = np.array([len(one) + len(other) for one, other in zip(tokens, targets, strict=True)])
    return TextRows([str(row) for row in range(len(asked))], tokens, targets, lengths, asked, said)


def ready(folder: Path, method: str = "p-tuning-v2", **more: Any) -> tuple[Base, Prompt, Tuned]:
    settings = Prompt.model_validate({"method": method, "tokens": 4, "rate": 0.1, "init_scale": 1.0, **more})
    base = load_base(folder)
    return base, settings, tune(base, settings, writing_head(base, AutoTokenizer.from_pretrained(folder)), seed=5)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_what_is_tuned_to_write_is_loaded_and_served_as_it_was(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    _, settings, tuned = ready(folder)
    rows = rows_for(folder)
    went = train(tuned, settings, SHARED, 0, rows, rows, lambda news: None)
    losses = [epoch.validation_loss for epoch in went.epochs]
    assert losses[-1] < 0.9 * losses[0] and 0 <= went.epochs[0].validation_accuracy <= 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = texts_of(tuned, tokenizer, rows, 16, 3)
    assert len(wanted) == len(ASKED) and any(wanted)

    files = {path.name: digest_file(path) for path in folder.iterdir()}
    card = {
        "base": {"name": name, "digest": digest_files(files), "files": files},
        "template": {"text": "{text}", "max_tokens": 32},
    }
    job = TrainJob(
        name="prompt", kind="prompt", settings=settings.model_dump(mode="json"), shared=SHARED,
        head=Head(kind="generation", max_new_tokens=16), labels=(), seed=5, train=Path("-"), validation=Path("-"),
        card=card,
    )  # fmt: skip
    digest = mint(tmp_path, tuned, settings, folder, job)
    predictor = load_predictor(tmp_path, folder, digest)
    assert predictor.writes and predictor.proven_within < 1e-4
    assert predictor.generate(ASKED) == wanted and predictor.generate([]) == []
    with pytest.raises(DataError, match="ask it to generate"):
        predictor.predict(ASKED)
    engine = Engine(folder)
    engine.add("replies", tmp_path, digest)
    assert ["".join(engine.generate("replies", text)) for text in ASKED] == wanted
    assert "".join(engine.generate("replies", ASKED[0], 1)) != wanted[0] or len(wanted[0]) < 2
    _refuses_another_proof(tmp_path, folder, predictor)


def _refuses_another_proof(folder: Path, base: Path, predictor: Predictor) -> None:
    other = shutil.copytree(folder, folder.with_name(f"{folder.name}-other"))
    proof = read_proof(other)
    assert proof.said is not None and proof.said.shape == proof.logits.shape == (8, 8)
    changed = proof.logits.clone()
    changed[3, 5] += 0.01
    write_proof(other, type(proof)(proof.texts, changed, proof.tolerance, proof.pairs, proof.said))
    with pytest.raises(ArtifactError, match="The proof failed"):
        load_predictor(other, base)


def test_a_loss_is_each_rows_mean_and_a_batch_in_parts_has_its_gradient(gpt2_folder: Path) -> None:
    base, _, tuned = ready(gpt2_folder, "prompt-tuning")
    tuned.double()
    base.lm_head.double()
    rows = rows_for(gpt2_folder, times=1)
    (ids, mask, targets), _ = rows.batch(np.arange(4), base.device)
    logits = tuned(ids, mask, targets)
    each, start = [], 0
    for target in rows.targets:
        own = logits[start : start + len(target)]
        each.append(torch.nn.functional.cross_entropy(own, torch.tensor(target)))
        start += len(target)
    assert start == len(logits)
    torch.testing.assert_close(cross_entropy(logits, targets), torch.stack(each).sum())
    gradients = []
    for tokens in (0, 12):
        tuned.zero_grad()
        loss = backward(tuned, tuned, rows, np.arange(4), "fp32", Portion(tokens))
        gradients.append((float(loss), torch.cat([p.grad.flatten() for _, p in tuned.trained()])))
    assert (
        gradients[0][0]
        == pytest.approx(gradients[1][0], abs=1e-5)
        == pytest.approx(float(torch.stack(each).mean().detach()), abs=1e-5)
    )
    torch.testing.assert_close(gradients[0][1], gradients[1][1], atol=1e-6, rtol=1e-4)


def test_an_earlier_epoch_counts_where_its_losses_are_lower_beyond_chance() -> None:
    good, worse = -torch.ones(40), -torch.ones(40)
    worse[:8] -= 0.1
    selection = Selection()
    assert selection.takes(good) and not selection.takes(worse)
    worse[8:16] += 0.2  # as often better as worse
    assert selection.takes(worse)


def test_what_cannot_write_is_refused_by_what_can(bert_folder: Path, llama_folder: Path, bart_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"a decoder .* or an encoder-decoder .* This one is 'bert'"):
        target_ids(AutoTokenizer.from_pretrained(bert_folder), bert_folder, ["a"])
    for method, more in (("late", {"layer": 1}), ("dept", {}), ("iapt", {})):
        with pytest.raises(RecipeError, match=f"{method} steers every position .* 'lopa', 'p-tuning', 'p-tuning-v2'"):
            ready(llama_folder, method, **more)
        ready(bart_folder, method, **more)


def test_targets_end_with_their_end_and_stand_after_a_space_on_decoders(llama_folder: Path, bart_folder: Path) -> None:
    for folder, before in ((llama_folder, " "), (bart_folder, "")):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert target_ids(tokenizer, folder, ["my refund ", "my refund"])[0] == [
            *tokenizer(f"{before}my refund", add_special_tokens=False)["input_ids"],
            tokenizer.eos_token_id,
        ]
