"""The search for options: what is tried, what comes of it, and that it can go on."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fastltc.cli.main import main
from fastltc.jobs import ConfigError, TrainConfig, plots, read_toml, train, tune
from fastltc.jobs.data import DataSet
from fastltc.jobs.tuning.space import Choice, default_space, read_space
from series_data import QUICK, known_as, made

pytest.importorskip("optuna")
SPACE = {"lr": Choice(low=1e-3, high=1e-1, log=True), "units": Choice((6, 9))}


def config(monkeypatch: pytest.MonkeyPatch, **options: Any) -> TrainConfig:
    return TrainConfig.for_data(known_as(monkeypatch, made()), **{**QUICK, **options})


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "search", lambda *arguments, **options: b"")


def test_a_search_goes_on_and_its_best_can_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = config(monkeypatch, select="mae")
    told: list[dict[str, Any]] = []
    tune(own, tmp_path / "a", 2, space=SPACE, progress=told.append)
    found = tune(own, tmp_path / "a", 4, space=SPACE, progress=told.append)
    assert [trial["number"] for trial in told] == [0, 1, 2, 3]
    # Enough is enough.
    assert tune(own, tmp_path / "a", 4, space=SPACE) == found
    assert json.loads((tmp_path / "a" / "tune.json").read_text()) == found
    values = [trial["value"] for trial in found["trials"] if trial["state"] == "complete"]
    assert found["best"]["value"] == min(values)
    assert set(found["importance"]) <= {"lr", "units"}
    best = TrainConfig.for_data(**read_toml(tmp_path / "a" / "best.toml"))
    assert best.lr == found["best"]["options"]["lr"]
    # The best is what training finds, on the same validation split.
    run = train(best, tmp_path / "run")
    assert run.metrics["val"]["mae"] == pytest.approx(found["best"]["value"], rel=1e-5)


def test_more_is_better_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tune(config(monkeypatch, select="r2"), tmp_path, 3, space=SPACE)
    values = [trial["value"] for trial in found["trials"] if trial["state"] == "complete"]
    assert found["best"]["value"] == max(values)


def test_the_test_split_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made()
    hidden = {name: split for name, split in data.splits.items() if name != "test"}
    monkeypatch.setattr(
        "fastltc.jobs.tuning.study.read_data",
        lambda config, **how: (config, DataSet(**{**vars(data), "splits": hidden}), None),
    )
    own = config(monkeypatch, model="series-cfc")
    assert len(tune(own, tmp_path, 1, space=SPACE)["trials"]) == 1


def test_processes_share_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = config(monkeypatch)
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    tune(own, tmp_path / "first", 1, space=SPACE, storage=url)
    searches = [
        threading.Thread(
            target=tune, args=(own, tmp_path / name, 5), kwargs={"space": SPACE, "storage": url}
        )
        for name in ("a", "b")
    ]
    for search in searches:
        search.start()
    for search in searches:
        search.join()
    found = tune(own, tmp_path / "first", 5, space=SPACE, storage=url)
    # Each may be at its last when the other has ended.
    assert 5 <= len(found["trials"]) <= 6


def test_what_fails_in_a_trial_is_told_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = config(monkeypatch, units=10, wiring="ncp")
    with pytest.raises(ConfigError, match="no trial came to an end; the last said: units: expect"):
        tune(own, tmp_path, 2, space={"units": Choice((2, 3))})


def test_studies_and_models_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = config(monkeypatch)
    tune(own, tmp_path / "a", 1, space=SPACE)
    other = config(monkeypatch, epochs=3)
    with pytest.raises(ConfigError, match="begun with other values of epochs, units"):
        tune(other, tmp_path / "a", 2, space={**SPACE, "units": Choice((5, 6))})
    with pytest.raises(ConfigError, match="storage: nothing://x: cannot be used"):
        tune(own, tmp_path / "b", 1, space=SPACE, storage="nothing://x")
    with pytest.raises(ConfigError, match="model: probe is fitted at once"):
        tune(TrainConfig.for_data("digits", model="probe"), tmp_path / "c", 1)
    with pytest.raises(ConfigError, match="lr_mu: the model series-cfc has no parameters mu"):
        tune(config(monkeypatch, model="series-cfc", lr_mu=2.0), tmp_path / "c", 1)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected options to search"),
        ("lr = [", "not a TOML file"),
        ("speed = [1, 2]", "speed is no option"),
        ("seed = [1, 2]", "seed is not searched"),
        ("window = [16, 32]", "window is not searched"),
        ("lr = []", "lr: expected a list of values or"),
        ("lr = {low = 1e-4}", "lr: expected a list"),
        ("lr = {low = 1e-2, high = 1e-4}", "lr: expected a list"),
        ("lr = {low = 0.0, high = 1e-4, log = true}", "lr: expected a list"),
        ("lr = {low = -1.0, high = 1e-4}", "lr: expected a finite number above 0, got -1.0"),
        ("units = {low = 1.5, high = 4}", "units: expected a list"),
        ("wiring = {low = 1, high = 4}", "wiring: expected a list"),
        ("units = [8, 'many']", "units: expected int, got 'many'"),
    ],
)
def test_spaces_that_cannot_be_searched(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_space(tmp_path / "s.toml")


def test_the_default_space_has_options_of_the_model_alone() -> None:
    assert "wiring" in default_space(TrainConfig(model="series-ltc"))
    assert "wiring" not in default_space(TrainConfig(model="dense"))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known_as(monkeypatch, made())
    (tmp_path / "own.toml").write_text('data = "made"\nepochs = 2\nunits = 8\nthreads = 1\n')
    (tmp_path / "own.space.toml").write_text("lr = {low = 1e-3, high = 1e-1, log = true}\n")
    result = CliRunner().invoke(main, ["tune", "own.toml", "--trials", "1"])
    assert result.exit_code == 0, result.output
    assert "trial 0: " in result.output
    assert "best: trial 0, validation loss" in result.output
    assert set(json.loads(Path("tune/own/tune.json").read_text())["space"]) == {"lr"}
    result = CliRunner().invoke(main, ["tune", "own.toml", "--trials", "0"])
    assert result.exit_code == 1
    assert "trials: expected at least 1, got 0" in result.output
