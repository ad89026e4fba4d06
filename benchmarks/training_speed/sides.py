"""The two sides: promptmint's training, and PEFT's PromptTuning with the Trainer of transformers.

Both start from the same vectors, see the same rows in the same batches, use the same AdamW and schedule, clip at the
same norm, and lower the same loss: the base's own cross-entropy over its whole vocabulary, at one label word per row.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import BATCH, OPTIMISATION, SEED, Case
from torch import Tensor

from pipelines.inference.base import Base, load_base
from pipelines.training.batches import epoch_batches
from pipelines.training.loop import new_schedule, train
from pipelines.training.shards import Rows
from pipelines.training.tuned import Tuned, tune


@dataclass(frozen=True)
class Ran:
    """What one training did."""

    losses: list[float]  # of each step
    seconds: float


class Ours:
    """promptmint: its own loop, whole; its seconds include one row of validation."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.base: Base = load_base(folder)

    def tuned(self) -> Tuned:
        """The prompt at its start; every word of the vocabulary is a class."""
        vocabulary = torch.arange(len(self.base.lm_head.weight))
        return tune(self.base, self.case.prompt(), {"word_ids": vocabulary}, SEED)

    def start(self) -> Tensor:
        """The prompt's vectors [P, d] before training."""
        return self.tuned().prompt.get_parameter("embeddings").detach().clone()  # type: ignore[union-attr]

    def run(self, rows: Rows, batch: int = BATCH) -> Ran:
        """One pass over the rows."""
        first = Rows(rows.ids[:1], rows.tokens[:1], rows.labels[:1], rows.lengths[:1])
        shared = OPTIMISATION.model_copy(update={"batch_size": batch})
        went = train(self.tuned(), self.case.prompt(), shared, SEED, rows, first, lambda news: None)
        return Ran([loss for _, loss in went.curve], went.seconds)


class Theirs:
    """PEFT and the Trainer as their documentation has them; its seconds begin when it has set everything up."""

    def __init__(self, case: Case, folder: Path) -> None:
        from peft import PromptTuningConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        self.case = case
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=case.tokens))
        self.table: torch.nn.Parameter = self.model.prompt_encoder["default"].embedding.weight

    def run(self, rows: Rows, start: Tensor) -> Ran:
        """One pass over the rows, from the given vectors [P, d]."""
        from transformers import Trainer, TrainingArguments

        self.table.data.copy_(start)
        steps = -(-len(rows) // BATCH)
        optimizer = torch.optim.AdamW(
            [{"params": [self.table], "lr": self.case.prompt().rate}], weight_decay=0.0, fused=True
        )
        optimizer.param_groups[0]["initial_lr"] = self.case.prompt().rate
        order = np.concatenate(epoch_batches(rows.lengths, BATCH, SEED, 0))
        examples = [{"ids": rows.tokens[row], "label": int(rows.labels[row])} for row in order]
        clock = _Clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, per_device_train_batch_size=BATCH, num_train_epochs=1, logging_steps=1, seed=SEED,
                max_grad_norm=OPTIMISATION.clip, train_sampling_strategy="sequential", remove_unused_columns=False,
                save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, log_level="error",
            )  # fmt: skip
            trainer = Trainer(
                model=self.model, args=arguments, train_dataset=examples, data_collator=_collate,
                optimizers=(optimizer, new_schedule(optimizer, OPTIMISATION, steps, 0)), callbacks=[clock.callback()],
            )  # fmt: skip
            from transformers import PrinterCallback

            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return Ran([entry["loss"] for entry in trainer.state.log_history if "loss" in entry], clock.seconds)


class _Clock:
    """The seconds from the first step's beginning to the last one's end."""

    def __init__(self) -> None:
        self.begun = self.seconds = 0.0

    def callback(self) -> Any:
        """A Trainer's callback that holds this clock."""
        from transformers import TrainerCallback

        clock = self

        class Callback(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                clock.begun = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                clock.seconds = time.perf_counter() - clock.begun

        return Callback()


def _collate(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Texts with their label word behind them, padded on the right; only the label word is asked for."""
    longest = max(len(example["ids"]) for example in examples) + 1
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        length = len(example["ids"])
        ids[row, : length + 1] = torch.tensor([*example["ids"], example["label"]])
        mask[row, : length + 1] = 1
        labels[row, length] = example["label"]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
