"""What the GPU benchmarks make of their times: figures, what is asked of them, and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from figures import Figure, Row, Spread
from interleave import Interleaved

LIMIT = "special-function limit"


@dataclass(frozen=True)
class Asked:
    """What a case has to reach, None where nothing is asked.

    Args:
        part_of_lstm: at most this part of the LSTM's time, forward and backward.
        times_ncps: at least so many times as quick as ncps, forward and backward.
        percent_of_limit: at least this much of the special-function limit.
    """

    part_of_lstm: float | None = None
    times_ncps: float | None = None
    percent_of_limit: float | None = None


def against_ncps(times: Interleaved, asked: Asked) -> Figure:
    """Return the time of ncps over that of fastltc."""
    ratio = times.ratio("ncps", "fastltc")
    return Figure("ncps", "{} x ncps", ratio, at_least=asked.times_ncps)


def against_compiled_ncps(times: Interleaved) -> Figure:
    """Return the time of compiled ncps over that of fastltc."""
    return Figure("ncps", "{} x torch.compile of ncps", times.ratio("ncps compiled", "fastltc"))


def against_lstm(times: Interleaved, units: int, asked: Asked) -> Figure:
    """Return the time of fastltc over that of the LSTM."""
    ratio = times.ratio("fastltc", "LSTM")
    return Figure("LSTM", f"{{}} of LSTM({units})", ratio, at_most=asked.part_of_lstm)


def over_limit(
    times: Interleaved, evaluations: int, limit_evaluations: int, asked: Asked, passes: int
) -> Figure:
    """Return how much of the special-function limit fastltc reaches, in percent.

    Args:
        times: with a contestant that does ``limit_evaluations`` as quickly as the GPU can.
        evaluations: sigmoids of one forward pass.
        limit_evaluations: of one call of the limit.
        asked: what is asked.
        passes: 1 for a forward pass; 2 with a backward pass, which has to evaluate each sigmoid
            once more, or to read what would take as long.
    """
    scale = 100 * passes * evaluations / limit_evaluations
    percent = times.ratio(LIMIT, "fastltc", scale=scale)
    text = "{} % of the special-function limit"
    return Figure("other", text, percent, at_least=asked.percent_of_limit)


def evaluation_rate(times: Interleaved, evaluations: int) -> Figure:
    """Return 10^12 evaluations per second of the limit, the only contestant."""
    rates = [1e-12 * evaluations / seconds for seconds in times.seconds[LIMIT]]
    return Figure("other", "{} x 10^12 evaluations/s", Spread.of(rates))


def gpu_row(
    case: str, task: str, times: Interleaved, figures: Sequence[Figure], error: float | None
) -> Row:
    """Return the row of a comparison on a GPU, whose threads do not count."""
    subject = times.seconds[times.subject.name]
    return Row(case, task, 0, list(figures), times.contestants(), len(subject), error)
