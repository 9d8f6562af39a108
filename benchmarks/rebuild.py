"""Seconds per local step: fedloom's persistent engine against a trainer rebuilt for every client and round.

    python -m benchmarks.rebuild

Same embedded model, clients, batch, steps, rank and learning rate. The rebuilt one does what published simulators do:
tokenise the client's data, make a `transformers.Trainer` with a fresh optimiser and loader, train, read the adapter
back, average. Medians over rounds in one process, one thread; the part that is not training is printed apart.
"""

import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
from transformers.utils import logging

from fedloom.protocols.execute import plan_of, work_of
from fedloom.protocols.prepared import prepare
from fedloom.protocols.tuning import read_run
from fedloom.rounds import begin, step
from fedloom.world import World

CLIENTS, ROUNDS, STEPS, BATCH, RANK, RATE = 6, 5, 4, 16, 8, 1e-3
MODEL = Path(__file__).resolve().parents[1] / "src/fedloom/embedded/model"


def fedloom_rounds() -> list[float]:
    """Return the seconds of each round of fedloom."""
    table = {
        "rounds": ROUNDS,
        "model": {"name": "causal_lm", "lora_rank": RANK, "lora_alpha": 2.0 * RANK},
        "data": {"name": "world", "n_clients": CLIENTS},
        "local": {"lr": RATE, "steps": STEPS, "batch": BATCH, "schedule": "constant"},
    }
    ready = prepare(read_run(table))
    leg = ready.legs[0]
    carrier, plan = leg.run.engine.start(work_of(ready, leg)), plan_of(leg)
    state, seconds = begin(plan, ready.layout.row({"": ready.shared})), list[float]()
    for _ in range(ROUNDS):
        start_s = time.perf_counter()
        state, _ = step(plan, state, carrier)
        seconds.append(time.perf_counter() - start_s)
    return seconds


class Rebuilt:
    """The published way, on today's libraries."""

    def __init__(self, folder: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        base = AutoModelForCausalLM.from_pretrained(MODEL)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        self.model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets))
        self.clients = World(0).clients(CLIENTS)
        self.folder = folder

    def _dataset(self, client) -> Dataset:  # noqa: ANN001
        def encode(row: dict[str, str]) -> dict[str, list[int]]:
            messages = [{"role": "user", "content": row["q"]}, {"role": "assistant", "content": row["a"]}]
            whole = self.tokenizer.apply_chat_template(messages, return_dict=False)
            head = self.tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
            return {"input_ids": whole, "labels": [-100] * len(head) + whole[len(head) :]}

        rows = [{"q": chat.prompt[-1].text, "a": chat.answer} for chat in client.train]
        return Dataset.from_list(rows).map(encode, remove_columns=["q", "a"])

    def _collate(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        pad = self.tokenizer.pad_token_id
        tokens = [row["input_ids"] + [pad] * (longest - len(row["input_ids"])) for row in rows]
        labels = [row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows]
        mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        return {"input_ids": torch.tensor(tokens), "labels": torch.tensor(labels), "attention_mask": torch.tensor(mask)}

    def round(self) -> tuple[float, float]:
        """Train all clients once; return (seconds in all, seconds of training alone)."""
        shared = {key: value.clone() for key, value in get_peft_model_state_dict(self.model).items()}
        total = {key: torch.zeros_like(value) for key, value in shared.items()}
        start_s, training_s = time.perf_counter(), 0.0
        for client in self.clients:
            set_peft_model_state_dict(self.model, shared)
            arguments = TrainingArguments(
                output_dir=self.folder,
                max_steps=STEPS,
                per_device_train_batch_size=BATCH,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                logging_strategy="no",
                use_cpu=True,
                dataloader_pin_memory=False,
            )
            trainer = Trainer(
                model=self.model, args=arguments, train_dataset=self._dataset(client), data_collator=self._collate
            )
            train_start_s = time.perf_counter()
            trainer.train()
            training_s += time.perf_counter() - train_start_s
            for key, value in get_peft_model_state_dict(self.model).items():
                total[key] += value / CLIENTS
        set_peft_model_state_dict(self.model, total)
        return time.perf_counter() - start_s, training_s


def main() -> None:
    """Print both medians and their ratio."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    torch.set_num_threads(1)
    ours = fedloom_rounds()
    with tempfile.TemporaryDirectory() as folder:
        rebuilt = Rebuilt(folder)
        theirs = [rebuilt.round() for _ in range(ROUNDS)]
    per_step = 1000 / (CLIENTS * STEPS)
    ours_ms = statistics.median(ours) * per_step
    theirs_ms = statistics.median(total for total, _ in theirs) * per_step
    training_ms = statistics.median(training for _, training in theirs) * per_step
    spread = (max(ours) - min(ours)) * per_step
    print(
        f"fedloom {ours_ms:.1f} ms per step (spread {spread:.1f}); rebuilt {theirs_ms:.1f}: {theirs_ms / ours_ms:.2f}x"
    )
    print(f"the rebuilt trainer's training alone: {training_ms:.1f} ms: {training_ms / ours_ms:.2f}x")
    record = {"fedloom_ms": ours_ms, "rebuilt_ms": theirs_ms, "rebuilt_training_ms": training_ms}
    print(
        json.dumps({"benchmark": "rebuild", **record, "clients": CLIENTS, "steps": STEPS, "batch": BATCH, "rank": RANK})
    )


if __name__ == "__main__":
    main()
