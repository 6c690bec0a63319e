from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ncps.torch
import pytest
import torch
from ncps.wirings import AutoNCP
from safetensors.torch import save_file
from torch import Tensor, nn

from fastltc import LTCCell
from fastltc.jobs import ConfigError, TrainConfig
from fastltc.jobs.models import (
    MODELS,
    Ensemble,
    Probe,
    Reservoir,
    build_model,
    load_weights,
    parts,
    trainable_parameters,
)
from fastltc.jobs.models.goal import Goal
from fastltc.jobs.models.series import Series


class PublicNet(nn.Module):
    """The published classifier, with the modules of ncps: RECIPE 1 in words, as code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=2)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 5, stride=2, padding=2)
        self.conv4 = nn.Conv2d(64, 128, 5, stride=2, padding=2)
        self.bn4 = nn.BatchNorm2d(128)
        self.rnn = ncps.torch.CfC(16, AutoNCP(19, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.conv3(x))
        x = torch.relu(self.bn4(self.conv4(x)))
        x = nn.functional.max_pool2d(x, 2).view(-1, 32, 16)
        output, _ = self.rnn(x)
        return output[:, -1]


def test_the_published_sizes() -> None:
    liquid = build_model("conv-ncp", (1, 28, 28), 2, 19, cell="cfc")
    assert trainable_parameters(liquid) == 263_048
    assert trainable_parameters(PublicNet()) == 263_048
    assert trainable_parameters(build_model("dense", (1, 28, 28), 2)) == 935_298


@pytest.mark.parametrize("kind", ["plain", "wrapped", "older", "safetensors"])
def test_the_published_state_dict_loads(tmp_path: Path, kind: str) -> None:
    public = PublicNet().eval()
    state: dict[str, Any] = public.state_dict()
    path = tmp_path / ("public.safetensors" if kind == "safetensors" else "public.pt")
    if kind == "wrapped":
        state = {"state_dict": {f"module.{key}": value for key, value in state.items()}}
    if kind == "safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "older")
    model = build_model("conv-ncp", (1, 28, 28), 2, 19, cell="cfc", gain=1.0)
    load_weights(model, path)
    images = torch.rand(5, 1, 28, 28) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), public(images), rtol=1e-5, atol=1e-5)


def test_weights_that_do_not_load(tmp_path: Path) -> None:
    model = build_model("dense", (1, 28, 28), 2)
    path = tmp_path / "w.pt"
    with pytest.raises(ValueError, match=r"weights: .*w.pt: no such file"):
        load_weights(model, path)
    path.write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"weights: .*w.pt: neither a file of torch.save"):
        load_weights(model, path)
    torch.save(PublicNet().state_dict(), path)
    with pytest.raises(ValueError, match=r"(?s)weights: .*w.pt: .*Missing key"):
        load_weights(model, path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(ValueError, match=r"expected a state dict, got Tensor"):
        load_weights(model, path)


@pytest.mark.parametrize("cell", ["ltc", "cfc"])
@pytest.mark.parametrize("wiring", ["ncp", "random", "full"])
def test_rows_are_read_from_the_top(cell: str, wiring: str) -> None:
    torch.manual_seed(0)
    model = build_model(f"rows-{cell}", (3, 6, 5), 4, 20, wiring=wiring).double()
    images = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    rows = torch.stack([images[:, :, row].reshape(2, 15) for row in range(6)], dim=1)
    output, _ = model.rnn(model.encoder(rows), timespans=0.3)
    read = output[:, -1] if wiring == "ncp" else output.flatten(1)
    torch.testing.assert_close(model(images), model.logits(read))
    assert model(images).shape == (2, 4)
    assert model.rows_read == ([5] if wiring == "ncp" else [0, 1, 2, 3, 4, 5])


def test_rows_without_encoder_are_pixels() -> None:
    model = build_model("rows-ltc", (1, 8, 5), 4, 20, encoder=0, reads=2)
    images = torch.randn(2, 1, 8, 5)
    output, _ = model.rnn(images[:, 0], timespans=0.3)
    torch.testing.assert_close(model(images), model.readout(output[:, [3, 7]].flatten(1)))


def test_a_series_model_uses_its_time_steps_and_scales() -> None:
    torch.manual_seed(0)
    model = build_model("series-ltc", (7, 3), 2, 12)
    rows = 100 + 50 * torch.randn(4, 7, 3)
    model.fit_scales(rows)
    scaled = model.scale(rows).reshape(-1, 3)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    short = model(rows, torch.full((4, 7), 0.5))
    assert short.shape == (4, 7, 2)
    assert (short - model(rows, torch.full((4, 7), 1.5))).abs().max() > 1e-3
    torch.testing.assert_close(model(rows), model(rows, torch.ones(4, 7)))
    # Scales are in the state dict.
    other = build_model("series-ltc", (7, 3), 2, 12)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(rows), model(rows))
    # Only earlier rows count.
    changed = rows.clone()
    changed[:, 5:] = 0
    torch.testing.assert_close(model(changed)[:, :5], model(rows)[:, :5])


def batches(images: Tensor, labels: Tensor) -> Any:
    def give() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(images.split(50), labels.split(50), strict=True)

    return give


def first_row_task(count: int) -> tuple[Tensor, Tensor]:
    """Images whose class is in the first row only; the ten rows below are noise."""
    labels = torch.arange(count) % 2
    images = 0.1 * torch.rand(count, 1, 11, 4)
    images[:, 0, 0] = labels[:, None].float()
    return 2 * images - 1, labels


def fitted(**options: Any) -> tuple[Reservoir, float]:
    torch.manual_seed(3)
    model = build_model("reservoir", (1, 11, 4), 2, 60, leak=1.0, reads=1, **options)
    model.fit(batches(*first_row_task(400)), batches(*first_row_task(100)))
    images, labels = first_row_task(300)
    return model, float((model(images).argmax(1) == labels).float().mean())


def test_the_recurrence_of_the_reservoir_matters() -> None:
    """The public reservoir takes one step from a zero state, where W does nothing."""
    model, remembering = fitted(spectral_radius=1.0)
    radius = torch.linalg.eigvals(model.w.double()).abs().max()
    assert radius == pytest.approx(1.0, rel=1e-4)
    _, forgetful = fitted(spectral_radius=0.0)
    # Without recurrence the readout sees the last row only, which is noise.
    assert forgetful < 0.65
    assert remembering > 0.9


def test_the_readout_solves_the_ridge_regression() -> None:
    torch.manual_seed(0)
    model = build_model("reservoir", (1, 11, 4), 2, 20, reads=2)
    images, labels = first_row_task(200)
    labels = torch.where(torch.rand(200) < 0.2, 1 - labels, labels)
    chosen = model.fit(batches(images, labels), batches(*first_row_task(60)))
    states = model.states(images).double()
    ridge = chosen["ridge"] * float((states * states).sum(0).mean())
    hot = nn.functional.one_hot(labels).double()
    system = states.T @ states + ridge * torch.eye(41, dtype=torch.float64)
    expected = torch.linalg.solve(system, states.T @ hot)

    def objective(weights: Tensor) -> float:
        error = states @ weights - hot
        return float(error.square().sum() + ridge * weights.square().sum())

    assert objective(model.readout.double()) == pytest.approx(objective(expected), rel=1e-3)
    assert objective(expected * 1.05) > objective(expected) * 1.001
    assert sum(p.numel() for p in model.parameters()) == 0


@pytest.mark.parametrize("probe", ["logistic", "svm"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_is_that_of_scikit_learn(probe: str, classes: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    torch.manual_seed(0)
    labels = torch.arange(150) % classes
    vectors = torch.randn(150, 6) * torch.tensor([1, 10, 100, 1, 1, 0.0]) + labels[:, None]
    model = build_model("probe", (6,), classes, probe=probe)
    assert isinstance(model, Probe)
    model.fit(batches(vectors, labels), batches(vectors, labels))
    solver = (
        LogisticRegression(max_iter=1000)
        if probe == "logistic"
        else LinearSVC(max_iter=10_000, dual="auto", random_state=0)
    )
    reference = make_pipeline(StandardScaler(), solver).fit(vectors.double(), labels)
    scores = torch.from_numpy(reference.decision_function(vectors.double())).float()
    found = model(vectors)
    if classes == 2:
        found = found[:, 1] - found[:, 0]
    torch.testing.assert_close(found, scores, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("dense", (32, 5), {}, "model: dense takes images or vectors, got series; for series: "),
        ("series-ltc", (1, 8, 8), {}, "model: series-ltc takes series, got images"),
        ("dense", (1, 8, 8), {"units": 30}, "units: no option of the model dense"),
        ("rows-ltc", (1, 8, 8), {"wiring": "small-world"}, "wiring: expected one of ncp"),
        ("rows-ltc", (1, 8, 8), {"wiring": "ncp", "reads": 2}, "reads: expected 1 with an ncp"),
        (
            "rows-ltc",
            (1, 8, 8),
            {"encoder": -1},
            "encoder: expected a finite number from 0",
        ),
        ("rows-ltc", (1, 8, 8), {"timestep": 0.0}, "timestep: expected a finite number above 0"),
        (
            "rows-ltc",
            (1, 8, 8),
            {"sparsity": 1.0},
            "sparsity: expected a number from 0 below 1",
        ),
        (
            "series-ltc",
            (8, 2),
            {"wiring": "none"},
            "wiring: expected one of ncp, random, full, got",
        ),
        ("series-cfc", (8, 2), {"unfolds": 3}, "unfolds: an option of LTC"),
        ("series-cfc", (8, 2), {"conductances": "fan-in"}, "conductances: an option of LTC"),
        ("series-ltc", (8, 2), {"conductances": "wide"}, "conductances: expected one of as-ncps"),
        ("series-ltc", (8, 2), {"unfolds": 0}, "ode_unfolds: expected 1 or more, got 0"),
        (
            "series-cfc",
            (8, 2),
            {"backbone_units": 9},
            "backbone_units: only a CfC without a wiring",
        ),
        ("series-cfc", (8, 2), {"backbone_layers": 2}, "backbone_layers: only a CfC without a"),
        ("series-ltc", (8, 2), {"timestep": 0.0}, "timestep: expected a finite number above 0"),
        ("series-ltc", (8, 2), {"clip": 0.0}, "clip: expected a finite number above 0"),
        ("series-ltc", (8, 2), {"pool": "first"}, "pool: expected one of last, last-and-mean"),
        ("series-ltc", (8, 2), {"pool": "last-and-mean"}, "pool: last-and-mean is of a linear"),
        ("series-ltc", (8, 2), {"decoder": -1}, "decoder: expected a finite number from 0"),
        ("series-ltc", (8, 2), {"wiring": "ncp", "decoder": 4}, "decoder: the motor neurons of an"),
        ("series-lstm", (8, 2), {"timestep": 0.3}, "timestep: an LSTM reads the time steps"),
        ("series-lstm", (8, 2), {"time_input": True}, "time_input: an LSTM reads the time steps"),
        ("series-lstm", (8, 2), {"wiring": "none"}, "wiring: expected one of full, got 'none'"),
        ("reservoir", (1, 8, 8), {"leak": 0.0}, "leak: expected above 0 up to 1, got 0.0"),
        ("reservoir", (1, 8, 8), {"reads": 9}, "reads: expected 1 to 8, got 9"),
        ("reservoir", (1, 8, 8), {"spectral_radius": -1.0}, "spectral_radius: expected a finite"),
        ("probe", (5,), {"probe": "forest"}, "probe: expected one of logistic, svm, got 'forest'"),
        ("probe", (5,), {"c": 0.0}, "c: expected a finite number above 0, got 0.0"),
        ("probe", (5,), {"backbone": "resnet18"}, "backbone: expected images, got vectors"),
        ("probe", (5,), {"pretrained": True}, "pretrained: a probe without a backbone has no"),
    ],
)
def test_what_does_not_fit(
    name: str, shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, shape, 3, **options)


def series(cell: str, **options: Any) -> Series:
    model = build_model(f"series-{cell}", (8, 2), 3, 12, **options)
    assert isinstance(model, Series)
    return model.eval()


@pytest.mark.parametrize("cell", ["ltc", "cfc"])
def test_a_time_step_of_its_own_takes_the_place_of_the_datas(cell: str) -> None:
    model = series(cell, timestep=0.3)
    rows, spans = torch.randn(4, 8, 2), torch.rand(4, 8)
    output, _ = model.rnn(rows, timespans=0.3)
    expected = model.logits(output)
    assert torch.equal(model(rows, spans), expected)
    assert torch.equal(model(rows), expected)


@pytest.mark.parametrize("masked", [False, True])
def test_the_time_step_as_an_input(masked: bool) -> None:
    goal = Goal(outputs=3, masked=masked)
    model = series("ltc", time_input=True, timestep=1.0, encoder=5, goal=goal)
    rows, spans = torch.randn(6, 8, 2) * 3 + 1, torch.rand(6, 8) * 9
    lengths = torch.tensor([8, 3, 8, 8, 5, 8])
    measured = torch.rand(6, 8, 2) > 0.3 if masked else None
    model.fit_scales(rows, lengths, measured, timespans=spans)
    inside = torch.arange(8) < lengths.unsqueeze(1)
    read = rows
    if model.fill is not None:
        read = model.fill(rows, measured, spans, lengths)
        torch.testing.assert_close(model.fill.mean, model.scale.mean[:2])
        # How long ago is standardised as all is; of what was measured the values.
        torch.testing.assert_close(model.scale.mean[2:6], read[inside][:, 2:].mean(0))
        first = rows[..., 0][inside & measured[..., 0]]
        torch.testing.assert_close(model.scale.mean[0], first.mean())
        torch.testing.assert_close(model.scale.deviation[0], first.std(correction=0))
    torch.testing.assert_close(model.scale.mean[-1], spans[inside].mean())
    torch.testing.assert_close(model.scale.deviation[-1], spans[inside].std(correction=0))
    read = torch.cat([read, spans.unsqueeze(-1)], dim=-1)
    output, _ = model.rnn(model.encoder(model.scale(read)), lengths=lengths)
    torch.testing.assert_close(model(rows, spans, lengths, measured), model.logits(output))
    # Nothing said is a step of 1.
    assert torch.equal(model(rows), model(rows, torch.ones(6, 8)))


def test_options_reach_the_cell() -> None:
    assert series("ltc", unfolds=2).rnn.rnn_cell._ode_unfolds == 2
    shape = series("cfc", wiring="none", backbone_units=7, backbone_layers=2, mixed_memory=True)
    assert [one.out_features for one in shape.rnn.rnn_cell.backbone if hasattr(one, "weight")] == [
        7,
        7,
    ]
    assert shape.rnn.use_mixed
    torch.manual_seed(3)
    usual = series("ltc").rnn.rnn_cell.w
    torch.manual_seed(3)
    assert torch.equal(series("ltc", conductances="as-ncps").rnn.rnn_cell.w, usual)
    few: Any = series("ltc", conductances="fan-in").rnn.rnn_cell
    assert few.make_positive_fn(few.w).max() < 4 * 1.81 / 14


@pytest.mark.parametrize("per_step", [True, False])
def test_a_decoder_sees_the_row_beside_the_state(per_step: bool) -> None:
    goal = Goal(outputs=3, per_step=per_step)
    model = series("cfc", decoder=9, encoder=5, dropout=0.5, goal=goal)
    rows, lengths = torch.randn(4, 8, 2), torch.tensor([8, 2, 5, 8])
    features = model.encoder(rows)
    output, _ = model.rnn(features, lengths=lengths)
    beside = features if per_step else features[range(4), lengths - 1]
    first, _, last = model.readout
    expected = last(nn.functional.silu(first(torch.cat([output, beside], dim=-1))))
    torch.testing.assert_close(model(rows, None, lengths), expected)
    assert first.out_features == 9


def test_inputs_are_held_within_deviations() -> None:
    model, twin = series("cfc", clip=0.5), series("cfc")
    twin.load_state_dict(model.state_dict())
    rows = torch.randn(4, 8, 2) * 2
    model.fit_scales(rows)
    held = model.scale(rows).clamp(-0.5, 0.5)
    torch.testing.assert_close(model(rows), twin(held))
    assert not torch.allclose(model(rows), twin(model.scale(rows)))
    layers = nn.Sequential(*parts.clamp(2, 0.5))
    torch.testing.assert_close(layers(rows), rows.clamp(-0.5, 0.5))


def test_the_mean_of_the_states_is_read_beside_the_last() -> None:
    goal = Goal(outputs=3, per_step=False)
    model = series("ltc", pool="last-and-mean", goal=goal)
    rows, lengths = torch.randn(3, 8, 2), torch.tensor([8, 3, 1])
    states = [model.rnn(rows[k : k + 1, : lengths[k]])[0][0] for k in range(3)]
    seen = torch.stack([torch.cat([one[-1], one.mean(0)]) for one in states])
    torch.testing.assert_close(model(rows, None, lengths), model.readout(seen))
    torch.testing.assert_close(model(rows)[:1], model(rows, None, lengths)[:1])


def test_dropout_is_of_the_encoder_too() -> None:
    model = series("cfc", encoder=400, dropout=0.25).train()
    dropped = (model.encoder(torch.randn(50, 2)) == 0).float().mean()
    assert float(dropped) == pytest.approx(0.25, abs=0.03)


def test_every_model_names_its_kind_of_data() -> None:
    for name, entry in MODELS.items():
        assert entry.kinds, name
        assert set(entry.kinds) <= {"images", "series", "vectors"}


def test_the_precision_of_sigmoids() -> None:
    for name, shape in (("conv-ncp", (1, 8, 8)), ("series-ltc", (8, 2)), ("rows-ltc", (1, 8, 8))):
        for members in (1, 2):
            model = build_model(name, shape, 3, members=members, sigmoid_precision="medium")
            cells = [module for module in model.modules() if isinstance(module, LTCCell)]
            assert len(cells) == members
            assert all(cell.sigmoid_precision == "medium" for cell in cells)
    with pytest.raises(ValueError, match="sigmoid_precision: an option of LTC; leave it out"):
        build_model("series-cfc", (8, 2), 2, sigmoid_precision="medium")
    with pytest.raises(ConfigError, match="sigmoid_precision: expected one of highest, medium"):
        TrainConfig(sigmoid_precision="high")


def test_an_ensemble_answers_with_the_mean_of_its_members() -> None:
    model = build_model("conv-ncp", (1, 8, 8), 3, members=3).eval()
    alone = trainable_parameters(build_model("conv-ncp", (1, 8, 8), 3))
    assert trainable_parameters(model) == 3 * alone
    assert isinstance(model, Ensemble)
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        members = torch.stack([member(images) for member in model.members])
        assert (members[0] != members[1]).any()
        torch.testing.assert_close(model(images), members.mean(dim=0))
    assert model.wiring is model.members[0].wiring


def test_an_ensemble_of_time_series_takes_the_scales(tmp_path: Path) -> None:
    model = build_model("series-ltc", (8, 2), 2, members=2)
    assert isinstance(model, Ensemble)
    model.fit_scales(torch.randn(50, 8, 2) * 3 + 5)
    first, second = (member.state_dict() for member in model.members)
    for name in (name for name in first if name.startswith("scale.")):
        assert torch.equal(first[name], second[name])
        assert (first[name] > 2).all()


def test_what_is_no_ensemble() -> None:
    assert not isinstance(build_model("dense", (1, 8, 8), 2, members=1), Ensemble)
    with pytest.raises(ValueError, match="members: expected at least 1, got 0"):
        build_model("dense", (1, 8, 8), 2, members=0)
    with pytest.raises(ValueError, match="members: a model in closed form"):
        build_model("reservoir", (1, 8, 8), 2, members=2)
    with pytest.raises(ValueError, match="members: expected at least 2, got 1"):
        Ensemble([nn.Linear(2, 2)])
