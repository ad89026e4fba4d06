"""What is exported answers, in plain PEFT and in plain transformers, as promptmint does; or it is not exported."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertModel,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    RobertaConfig,
    RobertaModel,
)

from pipelines.digests import digest_file, digest_folder
from pipelines.errors import ArtifactError, BaseModelError
from pipelines.inference.base import load_base
from pipelines.inference.forward import padded
from pipelines.inference.generation import said_logits
from pipelines.inference.predictor import load_predictor
from pipelines.inference.writing import target_logits, written
from pipelines.interchange import answer
from pipelines.interchange.export import LAYOUTS, export
from pipelines.interchange.peft import write_peft
from pipelines.prompts.artifact import read_prompt, read_proof, write_prompt, write_proof
from pipelines.recipe import Template
from pipelines.tokens.template import encode

WORDS = ("password", "invoice")
FIRST_WORDS = ("my", "please")  # one token each where a text begins, which is how an encoder-decoder says them
ROWS = [[5, 9, 12, 7, 30, 8], [6], [21, 14, 11], [9, 9, 17, 40, 6, 7, 8, 33, 19], [44, 2]]
CASES = [
    *[("peft", "bert", method, None) for method in ("prompt-tuning", "p-tuning", "p-tuning-v2", "prefix-tuning")],
    *[
        ("peft", base, method, words)
        for base in ("gpt2", "llama")
        for method in ("prompt-tuning", "p-tuning-v2")
        for words in (None, WORDS)
    ],
    # What an encoder gave, folded: nothing of the encoder is in the artifact, and PEFT needs none.
    *[("peft", base, method, WORDS) for base in ("gpt2", "llama") for method in ("p-tuning", "prefix-tuning")],
    ("prompt-embeds", "bert", "prompt-tuning", None),
    *[("prompt-embeds", base, "prompt-tuning", words) for base in ("gpt2", "llama") for words in (None, WORDS)],
    ("prompt-embeds", "llama", "p-tuning", WORDS),
    *[(layout, base, "prompt-tuning", FIRST_WORDS) for layout in ("peft", "prompt-embeds") for base in ("t5", "bart")],
]
FILES = {
    "peft": {"adapter_config.json", "adapter_model.safetensors"},
    "prompt-embeds": {"prompt_embeds.safetensors"},
}


@pytest.mark.parametrize(("layout", "base", "method", "words"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_it_answers_as_promptmint_does(
    prompt_on: Any, own_logits: Any, tmp_path: Path, layout: str, base: str, method: str, words: Any,
    dtype: torch.dtype, tolerance: float,
) -> None:  # fmt: skip
    minted = prompt_on(base, method, words)
    proven_within = export(minted.folder, minted.base_folder, layout, tmp_path / "out", minted.digest)
    assert 0 <= proven_within < 3e-5
    exported = answer.load(tmp_path / "out", minted.base_folder)
    exported.model.to(dtype)
    found = answer.class_logits(exported, *padded(ROWS, pad=3))
    wanted = own_logits(minted, ROWS, dtype)
    assert found.dtype == wanted.dtype == dtype and found.shape == (len(ROWS), 2)
    assert float((found - wanted).abs().max()) < tolerance
    assert float((found[1:] - found[:-1]).abs().max()) > 0.01, "the texts are told apart"


@pytest.mark.parametrize("base", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning-v2"])
@torch.no_grad()
def test_three_lines_of_plain_peft_score_label_words(
    prompt_on: Any, own_logits: Any, tmp_path: Path, base: str, method: str
) -> None:
    """As the guide writes it down, with nothing of ours in between."""
    minted = prompt_on(base, method, WORDS)
    export(minted.folder, minted.base_folder, "peft", tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(minted.base_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, tmp_path / "out").eval()
    words = load_file(tmp_path / "out" / "head.safetensors")["word_ids"]
    wanted = own_logits(minted, ROWS, torch.float32)
    for row, expected in zip(ROWS, wanted, strict=True):
        ids = torch.tensor([row])
        scores = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1, words]
        assert float((scores - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_says_what_it_needs(prompt_on: Any, tmp_path: Path, layout: str) -> None:
    minted = prompt_on("llama", "prompt-tuning", WORDS)
    export(minted.folder, minted.base_folder, layout, tmp_path / "out")
    card, prompt = json.loads((tmp_path / "out" / "promptmint.json").read_text()), read_prompt(minted.folder)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == FILES[layout] | {"promptmint.json", "head.safetensors", "answer.py"}
    assert card["files"] == {name: digest_file(tmp_path / "out" / name) for name in names - {"promptmint.json"}}
    assert card["base"] == prompt.card["base"] and card["prompt_digest"] == minted.digest
    assert (card["tokens"], card["place"], card["labels"]) == (4, "before the text", ["account", "billing"])
    assert torch.equal(load_file(tmp_path / "out" / "head.safetensors")["word_ids"], prompt.head["word_ids"])


def test_prompt_embeds_are_the_tensor_itself(prompt_on: Any, tmp_path: Path) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")
    export(minted.folder, minted.base_folder, "prompt-embeds", tmp_path / "out")
    stored = load_file(tmp_path / "out" / "prompt_embeds.safetensors")
    assert stored.keys() == {"prompt_embeds"} and stored["prompt_embeds"].shape == (4, 32)
    assert torch.equal(stored["prompt_embeds"], read_prompt(minted.folder).tensors["embeddings"])


def test_a_process_without_promptmint_answers_from_the_folder(prompt_on: Any, tmp_path: Path) -> None:
    minted = prompt_on("bert", "p-tuning-v2")
    export(minted.folder, minted.base_folder, "peft", tmp_path / "out")
    text = "please help me with my invoice today"
    (wanted,) = load_predictor(minted.folder, minted.base_folder).predict([text])

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(tmp_path / "out" / "answer.py"), str(minted.base_folder), text]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == f"{wanted.label}  {100 * wanted.probability:.1f} %  {text}\n", done.stderr


WRITERS = [("peft", "gpt2", "p-tuning-v2"), ("peft", "llama", "prompt-tuning"), ("prompt-embeds", "llama", "p-tuning")]


@pytest.mark.parametrize(("layout", "base", "method"), WRITERS)
def test_a_prompt_that_writes_says_the_same_tokens(
    mint_on: Any, request: pytest.FixtureRequest, tmp_path: Path, capsys: Any, layout: str, base: str, method: str
) -> None:
    """Texts of several lengths in a batch, forced and greedy; and the text that `answer.py` prints."""
    minted = mint_on(request.getfixturevalue(f"{base}_folder"), method, max_new_tokens=9)
    assert export(minted.folder, minted.base_folder, layout, tmp_path / "out") < 3e-5
    prompt, own = read_prompt(minted.folder), load_base(minted.base_folder)
    exported = answer.load(tmp_path / "out", minted.base_folder)
    said = [list(row) for row in zip(*written(own, ROWS, prompt.tensors, prompt.head, 9), strict=True)]
    for row, wanted in zip(ROWS, said, strict=True):
        assert answer.written(exported, torch.tensor([row])) == [token for token in wanted if token is not None]
    forced = torch.randint(5, 60, (len(ROWS), 7), generator=torch.Generator().manual_seed(3))
    found = answer.next_logits(exported, *padded(ROWS, pad=3), forced)[:, :-1].flatten(0, 1)
    wanted_logits = target_logits(own, *padded(ROWS), prompt.tensors, prompt.head, forced)
    assert float((found - wanted_logits).detach().abs().max()) < 1e-4

    answer.main(tmp_path / "out", minted.base_folder, ["my invoice"])
    (text,) = load_predictor(minted.folder, minted.base_folder).generate(["my invoice"])
    assert capsys.readouterr().out == f"{text}\n"


def test_other_tokens_than_the_proofs_are_refused(mint_on: Any, llama_folder: Path, tmp_path: Path) -> None:
    """Also where the logits of the proof's tokens are as they were: another token would have been said."""
    minted = mint_on(llama_folder, "prompt-tuning", max_new_tokens=4)
    artifact = shutil.copytree(minted.folder, tmp_path / "artifact")
    prompt, proof = read_prompt(artifact), read_proof(artifact)
    other = torch.full_like(proof.said, 9)
    tokenizer, template = AutoTokenizer.from_pretrained(llama_folder), Template(**prompt.card["template"])
    rows = [row.input_ids for row in encode(tokenizer, template, proof.texts)]
    logits = said_logits(load_base(llama_folder), rows, prompt.tensors, prompt.head, other)
    write_proof(artifact, dataclasses.replace(proof, said=other, logits=logits))
    refused(ArtifactError, "writes other tokens", artifact, llama_folder, "peft", tmp_path / "exports" / "out")


def test_it_refuses_long_texts_and_another_base(prompt_on: Any, tmp_path: Path) -> None:
    minted = prompt_on("bert", "p-tuning-v2")
    export(minted.folder, minted.base_folder, "peft", tmp_path / "out")
    with pytest.raises(SystemExit, match="takes 42 tokens of 32 allowed: shorten it"):
        answer.main(tmp_path / "out", minted.base_folder, ["invoice " * 40])
    other = shutil.copytree(minted.base_folder, tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    with pytest.raises(SystemExit, match=r"config\.json in .*Use that base"):
        answer.main(tmp_path / "out", other, ["invoice"])


GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "interchange.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("place", "layout", "base", "method", "words"),
    [
        (0, "peft", "llama", "prompt-tuning", WORDS),
        (0, "peft", "llama", "p-tuning-v2", WORDS),
        (1, "peft", "t5", "prompt-tuning", FIRST_WORDS),
        (2, "peft", "bert", "p-tuning-v2", None),
        (3, "prompt-embeds", "llama", "prompt-tuning", WORDS),
        (4, "peft", "llama", "prompt-tuning", WORDS),
    ],
)
def test_the_guides_code_gives_promptmints_logits(
    prompt_on: Any, tmp_path: Path, place: int, layout: str, base: str, method: str, words: Any
) -> None:
    minted = prompt_on(base, method, words)
    export(minted.folder, minted.base_folder, layout, tmp_path / "out")
    block = re.sub(r'"bases/[^"]+"', repr(str(minted.base_folder)), BLOCKS[place])
    block = re.sub(r'"exports/[^"]+"', repr(str(tmp_path / "out")), block)
    names: dict[str, Any] = {}
    exec(block, names)
    if "imported" in names:
        assert names["imported"].base["digest"] == digest_folder(minted.base_folder)
        return
    wanted = load_predictor(minted.folder, minted.base_folder).logits(["My card was charged twice"])[0]
    assert float((names["logits"] - wanted).abs().max()) < 1e-5


# Refusals: nothing is left of what was begun.


def refused(error: type[Exception], words: str, *arguments: Any) -> None:
    """The export fails with these words and leaves no file that was not there."""
    target: Path = arguments[3]
    target.parent.mkdir(exist_ok=True)
    before = digest_folder(target.parent)
    with pytest.raises(error, match=words):
        export(*arguments)
    assert digest_folder(target.parent) == before
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A target in a folder of its own."""
    return tmp_path / "exports" / "out"


def recarded(minted: Any, folder: Path, change: Callable[[dict[str, Any]], None], **tensors: Any) -> Path:
    """A copy of a minted prompt with another card, or with other tensors."""
    shutil.copytree(minted.folder, folder)
    prompt = read_prompt(folder)
    card = json.loads(json.dumps(prompt.card))
    change(card)
    write_prompt(folder, card, tensors or prompt.tensors, prompt.head)
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("place", ["behind the text", "in the template"])
def test_a_prompt_elsewhere_than_before_the_text_is_refused(
    prompt_on: Any, tmp_path: Path, target: Path, layout: str, place: str
) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")
    elsewhere = recarded(minted, tmp_path / "artifact", lambda card: card["method"].update(place=place))
    refused(ArtifactError, f"cannot express.*{place}.*before the text", elsewhere, minted.base_folder, layout, target)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_that_no_layout_knows_are_refused(prompt_on: Any, tmp_path: Path, target: Path, layout: str) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")
    more = {"embeddings": torch.ones(4, 32), "update": torch.ones(2, 32)}
    artifact = recarded(minted, tmp_path / "artifact", lambda card: None, **more)
    refused(ArtifactError, "cannot express.*'embeddings', 'update'", artifact, minted.base_folder, layout, target)


def test_input_embeddings_cannot_express_keys_and_values(prompt_on: Any, target: Path) -> None:
    minted = prompt_on("llama", "p-tuning-v2")
    words = r"'prompt-embeds' cannot express the method 'p-tuning-v2'.*It can express \['embeddings'\]"
    refused(ArtifactError, words, minted.folder, minted.base_folder, "prompt-embeds", target)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("method", "tensors", "place"),
    [
        ("late", "'layer_1'", "from one layer on"),
        ("lopa", "'embeddings', 'gate_u_in'.*", "another for each"),
        ("dept", "'embeddings', 'offsets_a', 'offsets_b'", "onto its embeddings"),
        ("iapt", "'pool_down'.*'pool_up_bias'", "another in every layer"),
    ],
)
def test_what_answers_to_the_text_or_enters_late_is_refused(
    prompt_on: Any, target: Path, layout: str, method: str, tensors: str, place: str
) -> None:
    minted = prompt_on("llama", method)
    words = rf"'{layout}' cannot express the method '{method}': its tensors \[{tensors}\] enter .*{place}.*Serve this"
    refused(ArtifactError, words, minted.folder, minted.base_folder, layout, target)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prompt_inside_the_text_is_refused(mint_on: Any, llama_folder: Path, target: Path, layout: str) -> None:
    minted = mint_on(llama_folder, "prompt-tuning", template="{text} {prompt} again")
    words = rf"'{layout}' cannot express.*'inserted'.*the template's {{prompt}}.*Serve this"
    refused(ArtifactError, words, minted.folder, minted.base_folder, layout, target)


def on_another_base(minted: Any, base: Path, folder: Path, **card: Any) -> Path:
    """A minted prompt that says it belongs to `base`."""
    files = {path.name: digest_file(path) for path in base.iterdir()}
    return recarded(
        minted, folder, lambda was: was.update(base={"name": "other", "digest": "0" * 64, "files": files}, **card)
    )


def test_an_encoder_that_takes_no_cache_is_refused(prompt_on: Any, tmp_path: Path, target: Path) -> None:
    minted = prompt_on("bert", "p-tuning-v2")
    base = tmp_path / "base"
    shutil.copytree(minted.base_folder, base)
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    DistilBertModel(
        DistilBertConfig(vocab_size=vocabulary, dim=32, hidden_dim=64, n_layers=2, n_heads=4)
    ).save_pretrained(base)
    artifact = on_another_base(minted, base, tmp_path / "artifact")
    words = "past_key_values, which a base of the type 'distilbert' does not take"
    refused(ArtifactError, words, artifact, base, "peft", target)


def test_a_prefix_that_would_slide_out_of_sight_is_refused(prompt_on: Any, tmp_path: Path, target: Path) -> None:
    minted = prompt_on("llama", "p-tuning-v2")
    base = shutil.copytree(minted.base_folder, tmp_path / "base")
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    config = MistralConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=35,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(base)
    artifact = on_another_base(minted, base, tmp_path / "artifact")
    refused(ArtifactError, "window of 35 positions.*take up to 36", artifact, base, "peft", target)


def test_an_encoder_that_counts_positions_in_another_way_is_refused(
    mint_on: Any, bert_folder: Path, tmp_path: Path, target: Path
) -> None:
    """RoBERTa counts from 2; only the proof can tell, and prompts that enter among its embeddings are not concerned."""
    base = shutil.copytree(bert_folder, tmp_path / "base")
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    RobertaModel(RobertaConfig(vocab_size=vocabulary, **sizes, pad_token_id=0, initializer_range=0.2)).save_pretrained(
        base
    )
    minted = mint_on(base, "p-tuning-v2")
    refused(ArtifactError, "answers differently", minted.folder, base, "peft", target)
    assert export(mint_on(base, "prompt-tuning").folder, base, "peft", target) < 1e-5


def test_a_base_that_scales_its_logits_is_refused(
    mint_on: Any, llama_folder: Path, tmp_path: Path, target: Path
) -> None:
    """Granite divides its vocabulary scores; promptmint scores label words without, so the probabilities differ."""
    base = shutil.copytree(llama_folder, tmp_path / "base")
    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    options = {"num_key_value_heads": 2, "logits_scaling": 4.0, "initializer_range": 0.2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    GraniteForCausalLM(GraniteConfig(vocab_size=vocabulary, **sizes, **options, **ends)).save_pretrained(base)
    refused(ArtifactError, "answers differently", mint_on(base, "prompt-tuning", WORDS).folder, base, "peft", target)
    assert export(mint_on(base, "prompt-tuning").folder, base, "peft", target) < 1e-5, "a linear head is not concerned"


def test_another_base_is_refused(prompt_on: Any, llama_folder: Path, target: Path) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")
    refused(BaseModelError, "minted on another base", minted.folder, llama_folder, "peft", target)


def test_another_digest_and_another_layout_are_refused(prompt_on: Any, target: Path) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")
    refused(ArtifactError, "wanted 000", minted.folder, minted.base_folder, "peft", target, "0" * 64)
    refused(ArtifactError, "no layout 'onnx'; there are 'peft', 'pr", minted.folder, minted.base_folder, "onnx", target)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_answer_that_differs_from_the_proof_is_refused(
    prompt_on: Any, tmp_path: Path, target: Path, layout: str
) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")
    artifact = shutil.copytree(minted.folder, tmp_path / "artifact")
    proof = read_proof(artifact)
    write_proof(artifact, dataclasses.replace(proof, logits=proof.logits + 2e-3))
    refused(ArtifactError, "answers differently: .* 2.00e-03", artifact, minted.base_folder, layout, target)


def test_without_peft_nothing_is_exported(prompt_on: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")
    monkeypatch.setitem(sys.modules, "peft", None)
    refused(ArtifactError, "'peft' is not installed", minted.folder, minted.base_folder, "peft", target)
    assert export(minted.folder, minted.base_folder, "prompt-embeds", target) < 1e-5


def test_what_peft_stumbles_over_is_refused(prompt_on: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT's own error becomes one of ours, with its words in it."""
    minted = prompt_on("llama", "p-tuning-v2")

    def wrong(prompt: Any, base_folder: Path, folder: Path) -> None:
        write_peft(prompt, base_folder, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"num_virtual_tokens": 5}))

    monkeypatch.setitem(LAYOUTS, "peft", wrong)
    refused(
        ArtifactError, "does not run on this base.*size mismatch", minted.folder, minted.base_folder, "peft", target
    )


def test_an_interrupted_export_leaves_nothing(prompt_on: Any, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minted = prompt_on("gpt2", "prompt-tuning")

    def interrupted(prompt: Any, base_folder: Path, folder: Path) -> None:
        write_peft(prompt, base_folder, folder)
        raise KeyboardInterrupt("by the user")

    monkeypatch.setitem(LAYOUTS, "peft", interrupted)
    refused(KeyboardInterrupt, "by the user", minted.folder, minted.base_folder, "peft", target)


def test_an_earlier_export_is_replaced_and_nothing_else(prompt_on: Any, target: Path) -> None:
    first, second = prompt_on("gpt2", "prompt-tuning"), prompt_on("gpt2", "prompt-tuning", WORDS)
    for minted in (first, second):
        export(minted.folder, minted.base_folder, "peft", target)
        assert json.loads((target / "promptmint.json").read_text())["prompt_digest"] == minted.digest
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    refused(BaseModelError, "another base", first.folder, first.folder, "peft", target)
    assert json.loads((target / "promptmint.json").read_text())["prompt_digest"] == second.digest
    mine = target.parent / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    refused(ArtifactError, "is no export of a prompt", first.folder, first.base_folder, "peft", mine)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_no_layout_says_is_refused(
    layout: str, mint_on: Callable[..., Any], llama_folder: Path, t5_folder: Path, tmp_path: Path
) -> None:
    refused = "answers single texts, by a linear head or by label words of one token each"
    in_decoder = {"words": FIRST_WORDS, "half": "decoder"}
    for minted, message in (
        (mint_on(llama_folder, "prompt-tuning", ("password", "credit card")), refused),
        (mint_on(llama_folder, "prompt-tuning", template="{text} and {pair}"), refused),
        (mint_on(t5_folder, "prompt-tuning"), "linear head reads the encoder"),
        (mint_on(t5_folder, "p-tuning-v2", FIRST_WORDS), "in every layer, in the encoder"),
        (mint_on(t5_folder, "prompt-tuning", max_new_tokens=4), "exported from decoders alone"),
        (mint_on(t5_folder, "prompt-tuning", **in_decoder), "before what the decoder says"),
    ):
        with pytest.raises(ArtifactError, match=message):
            export(minted.folder, minted.base_folder, layout, tmp_path / "export")
    assert not (tmp_path / "export").exists()
