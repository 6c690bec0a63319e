"""The command that searches options of training: ``fastltc tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..jobs.files import terminated_as_interrupted
from . import completion
from .options import (
    DATA_ROOT,
    DEVICE,
    JSON,
    OFFLINE,
    POSITIVE,
    THREADS,
    TRAIN_OPTIONS,
    echo,
    options,
    path_option,
    print_json,
    set_threads,
)
from .train import INTERRUPTED, absolute_options, configuration


@click.command()
@click.argument("recipe", shell_complete=completion.recipe)
@options(
    click.option("--trials", type=int, required=True, metavar="N", help="Trials of the study."),
    click.option(
        "--data",
        metavar="DATA",
        help="In place of that of the recipe.",
        shell_complete=completion.data_set,
    ),
    path_option("--space", "TOML", "What is searched.  [default: NAME.space.toml beside RECIPE]"),
    path_option("--out", "DIR", "Folder of the study.  [default: tune/RECIPE]"),
    click.option(
        "--storage",
        metavar="URL",
        help="Database that several processes may share.  [default: SQLite in --out]",
    ),
    click.option("--study", default="fastltc", show_default=True, help="Its name there."),
    DATA_ROOT,
    OFFLINE,
    *TRAIN_OPTIONS,
    POSITIVE,
    THREADS,
    DEVICE,
    JSON,
)
@terminated_as_interrupted()
def tune(
    recipe: str,
    trials: int,
    data: str | None,
    space: Path | None,
    out: Path | None,
    storage: str | None,
    study: str,
    offline: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Search the options of RECIPE, a recipe or a TOML file, by the validation split.

    Trials that fall behind are ended early. The same command goes on with a study, and with
    --storage several processes share one. Writes tune.json, tune.png and best.toml, for
    fastltc train --config.
    """
    from ..jobs import tune as search
    from ..jobs.tuning.space import read_space

    absolute_options(options)
    file = Path(recipe)
    is_file = file.suffix == ".toml"
    config = configuration(data, None if is_file else recipe, file if is_file else None, options)
    beside = file.with_name(f"{file.stem}.space.toml")
    if space is None and is_file and beside.is_file():
        space = beside
    out = Path("tune") / file.stem if out is None else out
    set_threads(config.threads)

    def told(trial: dict[str, Any]) -> None:
        value = "-" if trial["value"] is None else f"{trial['value']:.5g}"
        drawn = ", ".join(f"{name} {_short(one)}" for name, one in trial["options"].items())
        echo(f"trial {trial['number']}: {value} ({trial['state']}; {drawn})", err=as_json)

    try:
        found = search(
            config,
            out,
            trials,
            space=None if space is None else read_space(space),
            storage=storage,
            study=study,
            offline=offline,
            progress=told,
        )
    except KeyboardInterrupt:
        echo(f"interrupted: the trials so far are kept; the same command goes on with {out}")
        raise click.exceptions.Exit(INTERRUPTED) from None
    if as_json:
        print_json(found)
        return
    best = found["best"]
    drawn = ", ".join(f"{name} {_short(one)}" for name, one in best["options"].items())
    echo(f"best: trial {best['number']}, validation {found['metric']} {best['value']:.5g}: {drawn}")
    for name, share in found["importance"].items():
        echo(f"  importance of {name}: {share:.2f}")
    echo(f"written to {out}: best.toml, tune.json, tune.png")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
