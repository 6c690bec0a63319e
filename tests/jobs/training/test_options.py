"""Options of training: each does what it says, and a run resumed ends on the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastltc.jobs import (
    ConfigError,
    Progress,
    Run,
    RunError,
    TrainConfig,
    evaluate,
    read_recipe,
    recipe_names,
    train,
    train_seeds,
)
from fastltc.jobs.data import Split, load_data
from fastltc.jobs.evaluation.feed import Feed
from fastltc.jobs.training.augment import make_augment
from fastltc.jobs.training.objective import Objective
from fastltc.jobs.training.schedule import Schedule
from job_support import DENSE, QUICK, dense, real_data

pytestmark = pytest.mark.usefixtures("no_pictures")


def state(run: Run, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return run.load_checkpoint(name).model.state_dict()


def same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def close(first: Run, second: Run, tolerance: float = 1e-5) -> None:
    ours, theirs = state(first), state(second)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=tolerance)


class Interrupt:
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, images: int) -> None:
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options",
    [
        {**QUICK, "epochs": 4},
        {
            **DENSE,
            "epochs": 4,
            "optimizer": "nadam",
            "schedule": "cosine",
            "warmup": 1.5,
            "augment_crop": 7,
            "augment_brightness": 0.2,
        },
        {**DENSE, "epochs": 4, "optimizer": "adamw", "schedule": "plateau", "weight_decay": 0.1},
    ],
)
def test_a_resumed_run_ends_on_the_same_bits(tmp_path: Path, options: dict[str, Any]) -> None:
    if "augment_brightness" in options:
        pytest.importorskip("kornia")
    config = TrainConfig.for_data("digits", **options)
    whole = train(config, tmp_path / "whole")
    stopped = train(config, tmp_path / "stopped", progress=Progress(batch=Interrupt(13)))
    assert stopped.metrics["status"] == "interrupted"
    assert stopped.metrics["epochs"] == 2
    torch.manual_seed(99)  # nothing of this process helps
    resumed = train(config, tmp_path / "stopped", resume=True)
    assert resumed.metrics["status"] == "finished"
    assert same_bits(state(whole), state(resumed))
    assert same_bits(state(whole, "best.pt"), state(resumed, "best.pt"))
    assert resumed.metrics["test"] == whole.metrics["test"]
    logs = [
        [
            {name: value for name, value in json.loads(line).items() if name != "seconds"}
            for line in (run.path / "log.jsonl").read_text().splitlines()
        ]
        for run in (whole, resumed)
    ]
    assert logs[0] == logs[1]


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    run = train(dense(), tmp_path / "run")
    with pytest.raises(RunError, match="has 2 epochs already; give --epochs with more"):
        train(dense(), run.path, resume=True)
    with pytest.raises(RunError, match="no such run folder"):
        train(dense(), tmp_path / "absent", resume=True)
    (run.path / "last.pt").write_bytes(b"PK")
    with pytest.raises(RunError, match=r"last.pt: damaged checkpoint"):
        train(dense(epochs=5), run.path, resume=True)


def test_parts_of_a_batch_add_up(tmp_path: Path) -> None:
    close(train(dense(), tmp_path / "a"), train(dense(accumulate=3), tmp_path / "b"))


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    # Adam does not mind the scale of a gradient, but it does if each step has another.
    clipped = train(dense(clip_norm=1e-3), tmp_path / "a")
    assert not same_bits(state(clipped), state(train(dense(), tmp_path / "b")))
    assert clipped.metrics["test"]["accuracy"] > 0.3


def schedule(**options: Any) -> Schedule:
    parameter = torch.nn.Parameter(torch.zeros(1))
    config = dense(lr=0.1, **options)
    return Schedule(config, torch.optim.SGD([parameter], lr=9.0), steps=10)


def test_warm_up_and_cosine_go_step_by_step() -> None:
    cosine = schedule(schedule="cosine", warmup=2, epochs=10)
    rates = [cosine.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 / 21)
    assert np.allclose(np.diff(rates[:20]), 0.1 / 21)
    assert rates[20] == 0.1
    assert rates[60] == pytest.approx(0.05)
    assert rates[100] == pytest.approx(0, abs=1e-9)
    assert all(np.diff(rates[20:]) < 0)


def test_what_is_left_to_the_kind_of_data() -> None:
    left = TrainConfig.for_data("occupancy")
    assert (left.model, left.lr, left.clip_norm) == (None, None, None)
    series = left.settled("series")
    assert (series.model, series.lr, series.clip_norm) == ("series-ltc", 1e-2, 1.0)
    images = left.settled("images")
    assert (images.model, images.lr, images.clip_norm) == ("conv-ncp", 3e-3, None)
    assert TrainConfig(model="series-cfc").settled("series").lr == 3e-3
    assert TrainConfig(model="reservoir").settled("images").lr is None
    told = TrainConfig(model="series-cfc", lr=0.1, clip_norm=0.3)
    assert told.settled("series") == told


def test_a_short_epoch_takes_the_rate_as_far_as_a_long_one() -> None:
    cosine = schedule(schedule="cosine", epochs=10)
    for steps in (3, 4, 10):
        for _ in range(steps):
            cosine.before_step(steps)
    assert cosine.step_count == pytest.approx(30)


def test_the_plateau_lowers_the_rate_after_patience() -> None:
    plateau = schedule(schedule="plateau", plateau_factor=0.3, plateau_patience=2)
    found = []
    for loss in (1.0, 0.9, 0.95, 0.9, 0.8, 0.85, 0.9, 0.9, 0.9):
        plateau.after_epoch(loss)
        found.append(plateau.rate(5))
    expected = [0.1, 0.1, 0.1, 0.03, 0.03, 0.03, 0.009, 0.009, 0.0027]
    assert found == pytest.approx(expected)


def test_training_stops_when_it_no_longer_gets_better(tmp_path: Path) -> None:
    # Steps too small to change a weight: no epoch is better than the first.
    run = train(dense(epochs=30, lr=1e-15, patience=2), tmp_path / "run")
    assert run.metrics["status"] == "finished"
    assert (run.metrics["best_epoch"], run.metrics["epochs"]) == (1, 3)


def write_lopsided(path: Path) -> str:
    """Nine of ten examples are of the first class, and the classes overlap."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 400), ("val", 200), ("test", 200)):
        labels = (np.arange(count) % 10 == 0).astype(np.int64)
        arrays[f"x_{split}"] = rng.normal(size=(count, 4)) + labels[:, None] * [0.8, 0, 0, 0]
        arrays[f"y_{split}"] = labels
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_class_weights_find_more_of_a_rare_class(tmp_path: Path) -> None:
    data = write_lopsided(tmp_path / "lopsided.npz")
    recalls = {}
    for weights in ("none", "sqrt", "balanced"):
        config = TrainConfig.for_data(
            data, model="dense", epochs=3, batch_size=64, threads=1, class_weights=weights
        )
        run = train(config, tmp_path / weights)
        recalls[weights] = run.metrics["test"]["per_class"][1]["recall"]
    assert recalls["balanced"] > recalls["none"] + 0.2
    assert recalls["none"] <= recalls["sqrt"] <= recalls["balanced"]


@pytest.mark.parametrize("select", ["f1", "f1_macro", "average_precision"])
def test_the_best_epoch_by_other_metrics(tmp_path: Path, select: str) -> None:
    config = dense(select=select, positive="8", epochs=3)
    run = train(config, tmp_path / "run")
    records = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    scores = [record[f"val_{select}"] for record in records]
    assert scores[run.metrics["best_epoch"] - 1] == max(scores)


def test_the_last_epoch_by_request(tmp_path: Path) -> None:
    run = train(dense(select="last", epochs=3, lr=0.3), tmp_path / "run")
    assert run.metrics["best_epoch"] == 3
    assert run.metrics["selected_by"] == "being the last"
    assert same_bits(state(run, "best.pt"), state(run, "last.pt"))
    with pytest.raises(ConfigError, match="patience: select = last takes the last epoch"):
        dense(select="last", patience=3)


def test_answers_over_an_image_and_its_mirror_image(tmp_path: Path) -> None:
    run = train(dense(mirror=True), tmp_path / "run")
    checkpoint = run.load_checkpoint()
    digits = load_data("digits").splits["test"]
    pictures = Feed(digits, torch.device("cpu")).take(slice(None))[0]
    with torch.no_grad():
        model = checkpoint.model.eval()
        logits = (model(pictures) + model(pictures.flip(-1))) / 2
    accuracy = (logits.argmax(dim=1).numpy() == digits.labels).mean()
    assert run.metrics["test"]["accuracy"] == pytest.approx(accuracy)
    # Sixes and twos suffer, so that it cannot be the plain answer.
    assert (model(pictures).argmax(dim=1).numpy() == digits.labels).mean() != accuracy
    assert evaluate(run)["accuracy"] == pytest.approx(accuracy)
    with pytest.raises(ConfigError, match="mirror: only images can be mirrored"):
        train(TrainConfig(data=write_lopsided(tmp_path / "v.npz"), mirror=True), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_label_smoothing_is_torchs_and_holds_back_the_probabilities(tmp_path: Path) -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 3, -1])
    loss = Objective(labels, 4, smoothing=0.2).loss(logits, labels)
    targets = torch.nn.functional.one_hot(labels[:5], 4) * 0.8 + 0.05
    torch.testing.assert_close(loss, -(targets * logits[:5].log_softmax(dim=1)).sum())
    several = torch.tensor([[0, 1], [1, 1]])
    loss = Objective(several, 2, multilabel=True, smoothing=0.2).loss(logits[:2, :2], several)
    smooth = several * 0.8 + 0.1
    p = logits[:2, :2].sigmoid()
    expected = -(smooth * p.log() + (1 - smooth) * (1 - p).log()).sum()
    torch.testing.assert_close(loss, expected)
    with pytest.raises(ConfigError, match="label_smoothing: expected a number from 0 below 1"):
        dense(label_smoothing=1.0)


def test_members_of_an_ensemble_are_trained_as_if_alone(tmp_path: Path) -> None:
    alone = train(dense(epochs=2), tmp_path / "alone")
    run = train(dense(epochs=2, members=2), tmp_path / "both")
    both = state(run)
    for name, value in state(alone).items():
        assert torch.equal(both[f"members.0.{name}"], value)
        assert not torch.equal(both[f"members.1.{name}"], value)
    assert run.metrics["trainable_parameters"] == 2 * alone.metrics["trainable_parameters"]
    # The checkpoint knows that it is one.
    assert evaluate(run)["accuracy"] == run.metrics["test"]["accuracy"]


@pytest.mark.parametrize("select", ["f1", "average_precision"])
def test_a_metric_of_one_class_needs_a_class(tmp_path: Path, select: str) -> None:
    with pytest.raises(ConfigError, match=f"select: {select} is that of one class; name it"):
        train(dense(select=select), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_mixed_precision_on_the_cpu(tmp_path: Path) -> None:
    run = train(dense(amp="bf16", epochs=3), tmp_path / "run")
    assert run.metrics["test"]["accuracy"] > 0.8
    assert all(value.dtype == torch.float32 for value in state(run).values())


def images(count: int = 64, side: int = 32) -> torch.Tensor:
    x = torch.zeros(count, 3, side, side)
    x[:, :, side // 4 : side // 2, side // 4 : side // 2] = 0.8
    return x + 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"augment_scale": 0.3},
        {"augment_shift": 0.2},
        {"augment_rotate": 90.0},
        {"augment_shear": 20.0},
        {"augment_flip": True},
        {"augment_crop": 20},
        {"augment_colour": 0.2},
        {"augment_brightness": 0.3},
        {"augment_contrast": 0.5},
    ],
)
def test_each_augmentation_changes_images_within_bounds(options: dict[str, Any]) -> None:
    if "augment_crop" not in options:
        pytest.importorskip("kornia")
    augment = make_augment(dense(**options), (3, 32, 32))
    assert augment is not None
    changed = augment(images())
    side = options.get("augment_crop", 32)
    assert changed.shape == (64, 3, side, side)
    assert changed.min() >= 0
    assert changed.max() <= 1
    # Not all alike, so every image has its own draw.
    assert (changed - changed[:1]).abs().amax(dim=(1, 2, 3)).gt(0.01).sum() > 10


def test_probabilities_of_augmentation() -> None:
    pytest.importorskip("kornia")
    config = dense(augment_rotate=180.0, augment_affine_p=0.33)
    augment = make_augment(config, (3, 32, 32))
    assert augment is not None
    before = images(600)
    same = (augment(before) - before).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert 0.55 < same.float().mean() < 0.78


def test_evaluation_crops_the_middle_and_augments_nothing() -> None:
    data = load_data("digits").splits["test"]
    feed = Feed(data, torch.device("cpu"), crop=4)
    (taken,) = feed.take(slice(0, 3))
    expected = 2 * torch.from_numpy(data.inputs[:3, :, 2:6, 2:6]) - 1
    torch.testing.assert_close(taken, expected)


def test_what_cannot_be_augmented(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"augment_crop: expected at most the side .* got 9"):
        train(dense(augment_crop=9), tmp_path / "run")
    pytest.importorskip("kornia")
    with pytest.raises(ConfigError, match="augment_colour: expected images in colour"):
        train(dense(augment_colour=0.1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_kornia_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(ConfigError, match=r"augment: kornia is needed.*fastltc\[vision\]"):
        make_augment(dense(augment_flip=True), (1, 8, 8))


def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(dense(tensorboard=True), tmp_path / "run")
    log = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [event.step for event in log.Scalars("val_loss")] == [1, 2]


def test_seeds_give_mean_and_deviation(tmp_path: Path) -> None:
    summary = train_seeds(dense(seed=3), tmp_path / "runs", 3)
    assert summary["seeds"] == [3, 4, 5]
    values = [
        Run.open(tmp_path / "runs" / f"seed-{seed}").metrics["test"]["accuracy"]
        for seed in (3, 4, 5)
    ]
    found = summary["test"]["accuracy"]
    assert found["values"] == values
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert json.loads((tmp_path / "runs" / "seeds.json").read_text()) == summary
    with pytest.raises(ConfigError, match="seeds: expected at least 2, got 1"):
        train_seeds(dense(), tmp_path / "one", 1)


def test_a_model_in_closed_form_is_one_epoch(tmp_path: Path) -> None:
    config = TrainConfig.for_data("digits", model="reservoir", units=100, reads=4, threads=1)
    run = train(config, tmp_path / "run")
    assert run.metrics["epochs"] == 1
    assert run.metrics["test"]["accuracy"] > 0.9
    assert run.metrics["fitted"]["ridge"] > 0
    assert evaluate(run, "test", resamples=0)["accuracy"] == run.metrics["test"]["accuracy"]
    with pytest.raises(RunError, match="a reservoir is fitted at once"):
        train(config, run.path, resume=True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 3),
        ("lr", 0.1),
        ("optimizer", "adamw"),
        ("schedule", "cosine"),
        ("clip_norm", 1.0),
        ("accumulate", 2),
        ("class_weights", "balanced"),
        ("label_smoothing", 0.3),
        ("amp", "fp16"),
        ("augment_flip", True),
        ("select", "auc"),
        ("members", 2),
    ],
)
def test_a_model_in_closed_form_takes_no_options_of_gradients(
    tmp_path: Path, option: str, value: object
) -> None:
    # Without a name it is the model for vectors.
    data = write_lopsided(tmp_path / "v.npz")
    with pytest.raises(ConfigError, match=rf"{option}: .*(closed form; expected|in closed form)"):
        train(TrainConfig.for_data(data, **{option: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_model_in_closed_form_does_use(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights: a probe without a backbone has none"):
        dense(model="probe", epochs=20, batch_size=64, lr=None, weights="w").check_closed_form()
    # The epochs and the rate that BreastMNIST brings are not asked for.
    TrainConfig.for_data("breastmnist", model="probe").check_closed_form()
    for name in recipe_names():
        values = {key: value for key, value in read_recipe(name).items() if key != "about"}
        if values["model"] in ("probe", "reservoir"):
            TrainConfig.for_data(**values).check_closed_form()
    config = TrainConfig.for_data("digits", model="probe", mirror=True, augment_crop=6, threads=1)
    run = train(config, tmp_path / "run")
    assert run.load_checkpoint().model.weight.shape == (10, 36)


def test_a_probe_on_vectors(tmp_path: Path) -> None:
    data = write_lopsided(tmp_path / "v.npz")
    run = train(TrainConfig.for_data(data, threads=1), tmp_path / "run")
    assert run.config.model == "probe"
    result = evaluate(run, "test", positive="1", resamples=50)
    assert result["auc"] > 0.6
    assert [entry["recall"] for entry in result["precision_at_recall"]] == [0.95, 0.999]


def test_the_real_occupancy_with_its_time_steps(tmp_path: Path) -> None:
    root = real_data("occupancy")
    config = TrainConfig.for_data(
        "occupancy", data_root=str(root), epochs=4, threads=1, units=8, lr=2e-2, stride=16
    )
    run = train(config, tmp_path / "run")
    assert run.metrics["test"]["n"] == 2665 + 9752
    # Always "free" would be 0.79.
    assert run.metrics["test"]["accuracy"] > 0.85


LAUNCHED = """
import sys
from fastltc.jobs import TrainConfig, train
import torch
torch.set_num_threads(1)
config = TrainConfig.for_data("digits", {options})
train(config, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        # Few steps: Adam makes whole steps of gradients that are nothing but rounding.
        # tests/jobs/training/test_parallel.py compares gradients, in float64.
        "epochs=2, batch_size=630, units=14, threads=1, lr=1e-3",  # with batch norms
        "epochs=2, batch_size=250, model='dense', threads=1, lr=1e-3, clip_norm=0.5, accumulate=2",
    ],
)
def test_two_processes_do_what_one_does(tmp_path: Path, options: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(LAUNCHED.format(options=options))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    single, double = tmp_path / "single", tmp_path / "double"
    subprocess.run([sys.executable, script, single], check=True, env=environment)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, script, double], check=False, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, two = Run.open(single), Run.open(double)
    assert two.metrics["processes"] == 2
    images = 2 * torch.from_numpy(load_data("digits").splits["val"].inputs) - 1
    with torch.no_grad():
        first, second = (run.load_checkpoint("last.pt").model(images) for run in (one, two))
    # Not the parameters: those before a batch norm have no gradient but rounding, which Adam
    # makes steps of, and no influence.
    torch.testing.assert_close(second, first, atol=2e-3, rtol=2e-3)
    assert (first.argmax(1) == second.argmax(1)).float().mean() > 0.99
    assert len((double / "log.jsonl").read_text().splitlines()) == 2


def test_recipes_are_configurations() -> None:
    assert {"breastmnist-cfc-public", "mnist-reservoir", "occupancy-ltc"} <= set(recipe_names())
    for name in recipe_names():
        values = read_recipe(name)
        assert values.pop("about")
        config = TrainConfig.for_data(**values)
        assert config.model is not None
    with pytest.raises(ConfigError, match=r"recipe: expected one of .*, got 'mnsit'"):
        read_recipe("mnsit")


def test_the_published_recipe_is_as_published() -> None:
    values = read_recipe("breastmnist-cfc-public")
    values.pop("about")
    config = TrainConfig.for_data(**values)
    found = (config.optimizer, config.lr, config.batch_size, config.epochs, config.gain)
    assert found == ("adam", 1e-3, 128, 50, 1.0)


def test_splits_of_series_have_their_timespans() -> None:
    split = Split(
        np.zeros((2, 3, 1), np.float32),
        np.zeros((2, 3), np.int64),
        np.ones((2, 3), np.float32),
    )
    inputs = Feed(split, torch.device("cpu")).take(slice(0, 1))
    assert [tuple(value.shape) for value in inputs] == [(1, 3, 1), (1, 3)]
