"""Federated rounds as published simulators run them, on today's libraries: clients in sequence, a trainer for each.

OpenFedLLM (Ye et al., 2024, https://arxiv.org/abs/2402.06954): for every client of a round the shared adapter is put
into the one model, a new `trl` SFTTrainer tokenises the client's data and trains with padded batches, gradient
checkpointing and fresh AdamW in float32, and the adapter is read back; then the adapters are averaged. `PlainClient`
does the same with `transformers.Trainer` and no checkpointing.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, Trainer, TrainingArguments

from benchmarks._common import Settings
from benchmarks._ours import RATE
from benchmarks._shapes import Shape, base_folder, write_data

__all__ = ["Counted", "PlainClient", "PublishedRound", "TrlClient"]

State = dict[str, torch.Tensor]
Record = dict[str, str]


class Counted:
    """A collator that counts: supervised, padded and all tokens of the batches that it makes."""

    def __init__(self, collate: Callable[[list[Any]], Mapping[str, Any]]) -> None:
        self.collate = collate
        self.supervised = self.padding = self.tokens = 0

    def __call__(self, rows: list[Any]) -> Mapping[str, Any]:
        """Return the batch."""
        batch = self.collate(rows)
        self.tokens += batch["labels"].numel()
        self.supervised += int((batch["labels"][:, 1:] != -100).sum())
        self.padding += batch["labels"].numel() - sum(len(row["input_ids"]) for row in rows)
        return batch


class TrlClient:
    """A client of OpenFedLLM: one trainer for each call."""

    def __init__(
        self,
        shape: Shape,
        folder: Path,
        settings: Settings,
        *,
        checkpointing: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        disable_progress_bars()
        base = base_folder(shape, folder, device=settings.device)
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).to(settings.device)
        lora = LoraConfig(
            r=shape.rank, lora_alpha=2 * shape.rank, target_modules=list(shape.targets), task_type="CAUSAL_LM"
        )
        self.model = get_peft_model(model, lora)
        self.shape, self.folder, self.settings = shape, folder, settings
        self.checkpointing, self.dtype = checkpointing, dtype
        self.records = _by_owner(write_data(shape, folder))
        self.counts: list[Counted] = []
        self.training_s = 0.0

    def state(self) -> State:
        """Return a copy of the adapter."""
        return {key: value.clone() for key, value in get_peft_model_state_dict(self.model).items()}

    def train(self, shared: State, client: str) -> State:
        """Return the client's adapter after its local steps from the shared one."""
        set_peft_model_state_dict(self.model, shared)
        trainer = self._trainer(self.records[client])
        # Today's trainers count tokens over all batches of a step, which costs nothing here.
        trainer.data_collator = Counted(trainer.data_collator)
        self.counts.append(trainer.data_collator)
        trainer.remove_callback(PrinterCallback)
        start_s = time.perf_counter()
        trainer.train()
        self.training_s += time.perf_counter() - start_s
        return self.state()

    def _arguments(self) -> dict[str, Any]:
        return {
            "output_dir": str(self.folder),
            "max_steps": self.shape.steps,
            "per_device_train_batch_size": self.shape.batch,
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "gradient_checkpointing": self.checkpointing,
            "bf16": self.dtype == torch.bfloat16,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_strategy": "no",
            "use_cpu": self.settings.device == "cpu",
            "dataloader_pin_memory": False,
        }

    def _trainer(self, records: list[Record]) -> Trainer:
        from trl import SFTConfig, SFTTrainer

        rows = [
            {
                "prompt": [{"role": "user", "content": record["instruction"]}],
                "completion": [{"role": "assistant", "content": record["output"]}],
            }
            for record in records
        ]
        arguments = SFTConfig(**self._arguments(), max_length=512, completion_only_loss=True)
        return SFTTrainer(
            model=self.model,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer,
        )


class PlainClient(TrlClient):
    """The same client with `transformers.Trainer`: tokenised by hand, padded, labels on the answer."""

    def _trainer(self, records: list[Record]) -> Trainer:
        # Not with `Dataset.map`, which would hash what the function refers to: the model, in many published scripts.
        dataset = Dataset.from_list([self.encode(record) for record in records])
        return Trainer(
            model=self.model,
            args=TrainingArguments(**self._arguments()),
            train_dataset=dataset,
            data_collator=self.collate,
        )

    def encode(self, record: Record) -> dict[str, list[int]]:
        """Return a record as tokens and labels, -100 where nothing is learnt."""
        messages = [
            {"role": "user", "content": record["instruction"]},
            {"role": "assistant", "content": record["output"]},
        ]
        whole = self.tokenizer.apply_chat_template(messages, return_dict=False)
        head = self.tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
        return {"input_ids": whole, "labels": [-100] * len(head) + whole[len(head) :]}

    def collate(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return the rows padded on the right to the longest."""
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(key: str, filler: int) -> torch.Tensor:
            return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

        length_B = torch.tensor([len(row["input_ids"]) for row in rows])
        mask_BT = (torch.arange(longest) < length_B[:, None]).long()
        return {"input_ids": padded("input_ids", 0), "labels": padded("labels", -100), "attention_mask": mask_BT}


class PublishedRound:
    """Rounds of a client's training, one client after another, and the average of the adapters."""

    def __init__(self, client: TrlClient) -> None:
        self.client = client
        self.shared = client.state()

    def __call__(self) -> None:
        """Run one more round."""
        self.client.counts.clear()
        self.client.training_s = 0.0
        total = {key: torch.zeros_like(value) for key, value in self.shared.items()}
        for name in self.client.records:
            for key, value in self.client.train(self.shared, name).items():
                total[key] += value / len(self.client.records)
        self.shared = total

    def counted(self, what: str) -> int:
        """Return how many tokens of a kind the last round had."""
        kinds = {
            "supervised": lambda one: one.supervised,
            "padding": lambda one: one.padding,
            "tokens": lambda one: one.tokens,
        }
        return sum(kinds[what](one) for one in self.client.counts)


def _by_owner(path: Path) -> dict[str, list[Record]]:
    owned: dict[str, list[Record]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        owned.setdefault(record.pop("owner"), []).append(record)
    return owned
