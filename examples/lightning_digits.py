"""Trains a liquid layer by Lightning: handwritten digits, read row by row.

    pip install lightning
    python examples/lightning_digits.py [--epochs 20]

A layer is an ``nn.Module`` like any other, so nothing here is special but one thing: an image is a
sequence of its eight rows, and ``timespans`` says how much time lies between two of them. Needs no
download and no GPU.
"""

from __future__ import annotations

import argparse

import lightning
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from fastltc import LTC
from fastltc.wirings import Random


class RowReader(lightning.LightningModule):
    """Classifies images ``[B, 8, 8]`` by the state of an LTC after the last row."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = LTC(8, Random(48, sparsity_level=0.5), return_sequences=False)
        self.readout = nn.Linear(48, 10)

    def forward(self, rows: Tensor) -> Tensor:
        state, _ = self.rnn(rows, timespans=0.3)
        return self.readout(state)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        rows, labels = batch
        return functional.cross_entropy(self(rows), labels)

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        rows, labels = batch
        logits = self(rows)
        self.log("loss", functional.cross_entropy(logits, labels))
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def main() -> None:
    """Train, and print the loss before and after."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    lightning.seed_everything(0, verbose=False)
    digits = load_digits()
    rows = torch.tensor(digits.images / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    parts = train_test_split(rows, labels, test_size=0.2, stratify=labels, random_state=0)
    train = DataLoader(TensorDataset(parts[0], parts[2]), batch_size=64, shuffle=True)
    test = DataLoader(TensorDataset(parts[1], parts[3]), batch_size=len(parts[3]))

    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        gradient_clip_val=1.0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = RowReader()
    (before,) = trainer.validate(model, test, verbose=False)
    trainer.fit(model, train)
    (after,) = trainer.validate(model, test, verbose=False)
    print(f"loss {before['loss']:.3f} -> {after['loss']:.3f}, accuracy {after['accuracy']:.3f}")


if __name__ == "__main__":
    main()
