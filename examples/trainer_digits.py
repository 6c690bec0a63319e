"""Trains a liquid layer by the Trainer of transformers: handwritten digits, read row by row.

    pip install "transformers[torch]"
    python examples/trainer_digits.py [--epochs 20]

The Trainer wants a module whose ``forward`` takes a batch by the names of its columns and returns
the loss where it is given labels. An image is a sequence of its eight rows. Needs no download and
no GPU.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from transformers import EvalPrediction, Trainer, TrainingArguments

from fastltc import CfC
from fastltc.wirings import AutoNCP


class RowReader(nn.Module):
    """Classifies images ``[B, 8, 8]`` by the state of a CfC after the last row."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = CfC(8, AutoNCP(64, 24), return_sequences=False)
        self.readout = nn.Linear(24, 10)

    def forward(self, rows: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        state, _ = self.rnn(rows)
        logits = self.readout(state)
        if labels is None:
            return {"logits": logits}
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the share of images whose largest logit is that of their class."""
    found = np.argmax(prediction.predictions, axis=1)
    return {"accuracy": float((found == prediction.label_ids).mean())}


def main() -> None:
    """Train, and print the loss before and after."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    torch.manual_seed(0)
    digits = load_digits()
    samples = [
        {"rows": torch.tensor(image / 16, dtype=torch.float32), "labels": int(label)}
        for image, label in zip(digits.images, digits.target, strict=True)
    ]
    train, test = train_test_split(samples, test_size=0.2, stratify=digits.target, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            RowReader(),
            TrainingArguments(
                output_dir=folder,
                num_train_epochs=options.epochs,
                per_device_train_batch_size=64,
                per_device_eval_batch_size=len(test),
                learning_rate=0.01,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=train,
            eval_dataset=test,
            compute_metrics=accuracy,
        )
        before = trainer.evaluate()
        trainer.train()
        after = trainer.evaluate()
    print(
        f"loss {before['eval_loss']:.3f} -> {after['eval_loss']:.3f}, "
        f"accuracy {after['eval_accuracy']:.3f}"
    )


if __name__ == "__main__":
    main()
