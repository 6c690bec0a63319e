"""Searches options of training by Optuna: on the validation split alone."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import plots
from ..config import LESS_IS_BETTER, OPTIONS, TrainConfig
from ..errors import ConfigError, DivergedError
from ..files import format_json, write_all
from ..models import find_model
from ..options import COUNT
from ..training.memory import fit
from ..training.task import make_model, read_data
from .space import Choice, default_space

# A trial whose process says nothing for so long has died.
_HEARTBEAT, _GRACE = 60, 180


def tune(
    config: TrainConfig,
    out: Path | str,
    trials: int,
    *,
    space: Mapping[str, Choice] | None = None,
    storage: str | None = None,
    study: str = "fastltc",
    offline: bool = False,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains with options that are drawn from a space, until a study has ``trials``.

    A trial is judged by ``config.select`` (the loss where that is ``last``) of its best epoch on
    the validation split; the test split is not touched. A trial that does worse than the median of
    the others by an epoch is ended there. The study is kept in a database: a search that was ended
    goes on where it was, and several processes, on one machine or many, with the same ``storage``
    share one. What is drawn follows ``config.seed`` where one process searches alone.

    Args:
        config: what every trial starts from.
        out: folder for ``tune.db`` (where no ``storage`` is given), ``tune.json``, ``best.toml``,
            which ``fastltc train --config`` takes, and ``tune.png``.
        trials: how many the study is to have in all.
        space: what is searched; None for `default_space`.
        storage: URL of a database, as Optuna takes it; None for SQLite in ``out``.
        study: name of the study in it.
        offline: do not download the data set.
        progress: called after each trial with what `tune.json` says of it.

    Returns:
        What ``tune.json`` holds: ``metric``, ``best`` (number, value and options), ``importance``
        of each option, ``space`` and ``trials``.

    Raises:
        ConfigError: Optuna is not installed, the model is fitted in closed form, an option does not
            fit the data, no trial came to an end, or the study is of another configuration.
    """
    optuna = _optuna()
    COUNT.check("trials", trials, ConfigError)
    config, data, positive = read_data(config, offline=offline, download=None)
    assert config.model is not None
    if find_model(config.model).closed_form:
        raise ConfigError(f"model: {config.model} is fitted at once; there are no epochs to search")
    metric = "loss" if config.select == "last" else config.select
    config = replace(config, select=metric)
    space = default_space(config) if space is None else space
    # What cannot be made at all is told before anything is written.
    with torch.random.fork_rng([]):
        make_model(config, data, positive, resume=False)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    found = _open(optuna, config, out, space, storage, study)

    def objective(trial: Any) -> float:
        drawn = {name: one.draw(trial, name) for name, one in space.items()}
        sign = 1 if metric in LESS_IS_BETTER else -1
        best: list[float] = []

        def after(record: Mapping[str, Any]) -> None:
            value = record[f"val_{metric}"]
            if value is None:
                return
            best[:] = [sign * min(sign * one for one in (*best, value))]
            trial.report(best[0], int(record["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            fit(replace(config, **drawn), data, positive, after)
        # Options that do not go together, and rates that are too large, are answers as well.
        except (ConfigError, DivergedError) as error:
            trial.set_user_attr("error", str(error))
            raise optuna.TrialPruned(str(error)) from None
        if not best:
            raise optuna.TrialPruned(f"no {metric} on the validation split")
        return best[0]

    def after_trial(study: Any, trial: Any) -> None:
        if progress is not None:
            progress(_told(trial))

    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    enough = optuna.study.MaxTrialsCallback(trials, states=done)
    if len(found.get_trials(deepcopy=False, states=done)) < trials:
        found.optimize(objective, callbacks=[after_trial, enough])
    return _report(optuna, found, config, space, metric, out)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            f"tune: Optuna cannot be imported ({error}): pip install 'fastltc[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open(
    optuna: Any,
    config: TrainConfig,
    out: Path,
    space: Mapping[str, Choice],
    storage: str | None,
    name: str,
) -> Any:
    """The study, new or as it is; of another configuration it is an error."""
    url = storage or f"sqlite:///{out.resolve() / 'tune.db'}"
    try:
        with warnings.catch_warnings():
            # Of the heartbeat, which is experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            held = optuna.storages.RDBStorage(
                url, heartbeat_interval=_HEARTBEAT, grace_period=_GRACE
            )
        study = optuna.create_study(
            storage=held,
            study_name=name,
            direction="minimize" if config.select in LESS_IS_BETTER else "maximize",
            sampler=optuna.samplers.TPESampler(seed=config.seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
            load_if_exists=True,
        )
    # Of drivers, URLs and files that are no database.
    except Exception as error:
        raise ConfigError(f"storage: {url}: cannot be used: {error}".splitlines()[0]) from None
    own = {
        "config": {n: v for n, v in config.to_dict().items() if n not in _FREE},
        "space": {option: one.to_plain() for option, one in space.items()},
    }
    told = json.loads(json.dumps(own))
    known = study.user_attrs.get("fastltc")
    if known is None:
        study.set_user_attr("fastltc", told)
    elif known != told:
        changed = [
            option
            for part in ("config", "space")
            for option in {**known[part], **told[part]}
            if known[part].get(option) != told[part].get(option)
        ]
        raise ConfigError(
            f"study: {name!r} in {url} was begun with other values of {', '.join(changed)}; go on "
            "with those, or give another --study or --out"
        )
    return study


# They do not change what a trial is worth.
_FREE = ("threads", "device", "data_root", "tensorboard")


def _told(trial: Any) -> dict[str, Any]:
    value = trial.value
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": value if value is not None and math.isfinite(value) else None,
        "options": trial.params,
        "epochs": len(trial.intermediate_values),
        **trial.user_attrs,
    }


def _report(
    optuna: Any,
    study: Any,
    config: TrainConfig,
    space: Mapping[str, Choice],
    metric: str,
    out: Path,
) -> dict[str, Any]:
    trials = [_told(trial) for trial in study.get_trials(deepcopy=False)]
    whole = [trial for trial in trials if trial["state"] == "complete"]
    if not whole:
        errors = [trial["error"] for trial in trials if "error" in trial]
        raise ConfigError(
            "tune: no trial came to an end" + (f"; the last said: {errors[-1]}" if errors else "")
        )
    importance: dict[str, float] = {}
    if len(whole) > 1 and len({trial["value"] for trial in whole}) > 1:
        # Random forests, which else differ from call to call.
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        importance = {name: float(value) for name, value in found.items()}
    best = _told(study.best_trial)
    result = {
        "metric": metric,
        "best": best,
        "importance": importance,
        "space": {name: one.to_plain() for name, one in space.items()},
        "trials": trials,
    }
    title = f"{config.model} on {config.data}"
    write_all(
        {
            out / "tune.json": format_json(result),
            out / "best.toml": _toml({**config.to_dict(), **best["options"]}).encode(),
            out / "tune.png": plots.search(
                trials, importance, metric, less=metric in LESS_IS_BETTER, title=title
            ),
        }
    )
    return result


def _toml(values: Mapping[str, Any]) -> str:
    """Options that are not at their default, for ``--config``."""
    changed = {
        name: value
        for name, value in values.items()
        if value is not None and (name == "data" or value != OPTIONS[name].default)
    }
    # JSON's numbers, texts and truths are those of TOML.
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in changed.items())
