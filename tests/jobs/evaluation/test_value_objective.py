"""In what unit the loss of values counts."""

from __future__ import annotations

import torch

from fastltc.jobs.config import TrainConfig
from fastltc.jobs.evaluation.value_objective import ValueObjective


def loss_and_errors(error_unit: str) -> tuple[float, torch.Tensor, torch.Tensor]:
    config = TrainConfig.for_data("walker2d", error_unit=error_unit)
    unit = torch.tensor([0.5, 20.0, 3.0], dtype=torch.float64)
    answers = torch.randn(4, 5, 3, dtype=torch.float64) * unit
    labels = torch.randn_like(answers)
    objective = ValueObjective.of(config, unit)
    mean = objective.loss(answers, labels) / objective.divisor(labels)
    return float(mean), (answers - labels).square().mean(dim=(0, 1)), unit


def test_each_target_counts_in_its_own_deviations() -> None:
    loss, errors, unit = loss_and_errors("target")
    torch.testing.assert_close(loss, float((errors / unit.square()).mean()))


def test_a_common_unit_makes_it_the_mean_squared_error() -> None:
    loss, errors, unit = loss_and_errors("common")
    torch.testing.assert_close(loss, float(errors.mean() / unit.square().mean()))
