"""Explains a liquid classifier by Captum: which rows of a digit decided what it is.

    pip install captum
    python examples/captum_digits.py [--epochs 20]

Captum wants a function from inputs to the outputs of each class. A layer returns its last state
besides, so the model here returns the logits alone; nothing else is special. The same integrated
gradients, without Captum, are ``fastltc.inspect.attribute``. Needs no download and no GPU.
"""

from __future__ import annotations

import argparse

import torch
from captum.attr import IntegratedGradients
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from fastltc import CfC
from fastltc.inspect import attribute
from fastltc.wirings import AutoNCP


class RowReader(nn.Module):
    """Classifies images ``[B, 8, 8]`` by the state of a CfC after the last row."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = CfC(8, AutoNCP(48, 10), return_sequences=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, ``[B, 10]``."""
        return 8 * self.rnn(images)[0]


def train(epochs: int) -> tuple[RowReader, Tensor, Tensor]:
    """Return a model, and the images and labels that it was trained on."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    model = RowReader()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            loss = functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), images, labels


def main() -> None:
    """Train, and print what each row of a digit has added to its logit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    model, images, labels = train(parser.parse_args().epochs)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).float().mean().item()
    image, label = images[:1], int(labels[0])

    found, gap = IntegratedGradients(model).attribute(
        image,
        target=label,
        n_steps=64,
        method="riemann_middle",
        return_convergence_delta=True,
    )
    for row, added in zip(image[0], found.sum(2)[0].tolist(), strict=True):
        print("".join(" .:*#"[int(4 * pixel)] for pixel in row), f"{added:+.2f}")
    ours = attribute(model, image, label, steps=64)
    difference = (ours - found).abs().max().item()
    print(f"digit {label}, accuracy {accuracy:.2f}, added up to {found.sum().item():.2f}")
    print(f"left over {gap.abs().item():.4f}, fastltc.inspect differs by {difference:.1g}")


if __name__ == "__main__":
    main()
