"""Whether the test metrics of runs may stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..config import OPTIONS
from ..errors import RunError
from ..run import CONFIG, Run, read_json

# Options of the data that decide which examples are tested, and those that decide in what form.
_COLUMNS = ("split", "group", "file", "label", "time", "recording")
_WHICH = (
    *("split_seed", "split_by", "target", "horizon", "known", "label_per"),
    *(f"{of}_column" for of in _COLUMNS),
)
_FORM = (
    *("image_size", "channels", "window", "time_unit"),
    *("inputs", "categorical", "encoding", "missing"),
)


def check_same_test(runs: Sequence[Run]) -> tuple[str, ...]:
    """Makes sure that runs were tested on the examples of the first, as far as they tell.

    Returns:
        What a reader of the metrics must know: examples that came in another form.

    Raises:
        RunError: a run was tested on other data or other examples; the text names it and why.
    """
    return tuple(filter(None, (_difference(runs[0], run) for run in runs[1:])))


def _difference(first: Run, other: Run) -> str | None:
    ours, theirs = first.metrics, other.metrics
    if ours["data"] != theirs["data"]:
        raise RunError(f"the runs are on different data: {ours['data']}, {theirs['data']}")
    digests = [_digest(metrics) for metrics in (ours, theirs)]
    if None not in digests and digests[0] == digests[1]:
        return None
    for name in (*_WHICH, *_FORM):
        one, two = _option(first, name), _option(other, name)
        if one != two:
            text = f"{other.path}: {name} is {two!r}, in {first.path} it is {one!r}: "
            if name in _FORM:
                return text + "the test examples in another form"
            raise RunError(text + "other test examples, which do not compare")
    sizes = [metrics["images"]["test"] for metrics in (ours, theirs)]
    if None not in digests or sizes[0] != sizes[1]:
        raise RunError(
            f"{other.path}: was tested on other examples than {first.path} ({sizes[1]} and "
            f"{sizes[0]}), although of {ours['data']}: the data has changed"
        )
    return None


def _digest(metrics: dict[str, Any]) -> str | None:
    digest = metrics.get("splits", {}).get("test", {}).get("digest")
    return None if digest is None else str(digest)


def _option(run: Run, name: str) -> Any:
    # As it is in the file: a configuration with its model needs torch.
    return read_json(run.path / CONFIG).get(name, OPTIONS[name].default)


def positive_class(runs: Sequence[Run]) -> str | None:
    """The class that F1 and average precision of runs are about; None without one.

    Raises:
        RunError: the runs have different ones.
    """
    named = {run.path: run.metrics["test"].get("positive_class") for run in runs}
    found = {path: None if entry is None else str(entry["name"]) for path, entry in named.items()}
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{path}: {name}" for path, name in found.items())
        raise RunError(f"seeds of one run with different positive classes: {listed}")
    return next(iter(found.values()))
