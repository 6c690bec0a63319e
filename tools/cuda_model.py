"""A lower estimate of what the CUDA kernels take, from what the emulator counts.

    python tools/cuda_model.py                    # csrc/cuda/counts.json
    python tools/cuda_model.py OTHER.json         # such as that of another commit

Of the recurrence, for each unfold (CfC: step), the largest of

- the instructions of a scheduler's warps, one a clock,
- their special-function operations, eight clocks each,
- the wavefronts of shared memory, one a clock,
- the chain of what waits for each other within a warp,

and for each launch a fixed time, of the kernels before and after the recurrence nothing else: so a
kernel takes longer. Estimates; nothing here is measured, and none of it belongs into a table of
results. Latencies are those that others have measured of compute capability 9.0; instructions for
each synapse are counted in the machine code for it (CUDA 13.0).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).resolve().parents[1] / "csrc" / "cuda" / "counts.json"

CLOCKS_PER_US = 1755.0
MULTIPROCESSORS = 132
SCHEDULERS = 4
LAUNCH_US = 1.5  # of a node of a graph
# Clocks until a result is there.
SHARED, SPECIAL, MULTIPLY_ADD, SHUFFLE, BLOCK_BARRIER, WARP_BARRIER = 29, 23, 4, 24, 30, 12
REMOTE = 200  # from one block's shared memory to another's


@dataclass(frozen=True)
class Case:
    """A case of the list: so many samples, of which a block runs some at once."""

    counts: str
    batch: int
    steps: int
    unfolds: int
    samples: int  # of a block or cluster at once
    blocks: int  # of a cluster
    resident: int  # blocks of a multiprocessor
    slots: int  # synapses of a lane, one after the other in a sum
    waits: tuple[int, int]  # for shuffles, forward and backward: one for up to two bits of a sum
    instructions: tuple[float, float]  # of a warp for two special-function operations


CASES = (
    Case("LTC AutoNCP(19, 2)", 128, 32, 6, 1, 1, 8, 3, (1, 1), (14.0, 26.0)),
    Case("LTC FullyConnected(64)", 64, 256, 6, 1, 1, 1, 8, (2, 4), (12.0, 26.0)),
    Case("LTC FullyConnected(256) of 16", 256, 128, 6, 16, 8, 1, 32, (0, 0), (11.7, 14.6)),
    Case("CfC AutoNCP(19, 2)", 128, 32, 1, 1, 1, 8, 10, (0, 0), (14.0, 26.0)),
    Case("CfC(64) of 4", 128, 64, 1, 4, 1, 1, 32, (4, 4), (40.0, 60.0)),
)


@dataclass(frozen=True)
class Estimate:
    """Clocks of an unfold by what bounds it, and microseconds of a pass."""

    clocks: dict[str, float]
    us: float

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.clocks, key=lambda what: self.clocks[what])


def estimate(case: Case, row: dict[str, float], is_backward: bool) -> Estimate:
    """Return the estimate of a pass from the list's row of it."""
    groups = -(-case.batch // case.samples)  # blocks or clusters
    of_block = row["warps"] / case.blocks
    at_once = MULTIPROCESSORS // case.blocks * case.resident
    resident = min(case.resident, -(-groups * case.blocks // MULTIPROCESSORS))
    warps = resident * of_block / SCHEDULERS
    special = row["special_of_warp"]
    local, remote = (
        row[what] / case.blocks * resident for what in ("wavefronts", "remote_wavefronts")
    )
    barrier = WARP_BARRIER if of_block == 1 else BLOCK_BARRIER
    # A sigmoid, its sum, the lanes, a reciprocal, the new value and a barrier; back again loads and
    # another sum.
    chain: float = SHARED + 2 * SPECIAL + case.slots * MULTIPLY_ADD + 6 * MULTIPLY_ADD + SPECIAL
    chain += case.waits[is_backward] * (SHUFFLE + MULTIPLY_ADD)
    chain += row["barriers_of_warp"] * barrier + (REMOTE if remote else 0)
    if is_backward:
        chain += 2 * SHARED + case.slots * MULTIPLY_ADD
    clocks = {
        "instructions": warps * special / 2 * case.instructions[is_backward],
        "special functions": warps * special * 8,
        "shared memory": local + remote,
        "chain": chain,
    }
    rounds = -(-groups // at_once)
    recurrence = rounds * case.steps * case.unfolds * max(clocks.values()) / CLOCKS_PER_US
    return Estimate(clocks, recurrence + row["nodes"] * LAUNCH_US)


def main() -> None:
    """Print the estimates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("list", nargs="?", type=Path, default=LIST)
    rows = json.loads(parser.parse_args().list.read_text(encoding="utf-8"))
    print("Lower estimates from counts, not measured, of an H100 of 132 multiprocessors:")
    for case in CASES:
        total = 0.0
        for which in ("forward", "backward"):
            found = estimate(case, rows[f"{case.counts} {which}"], which == "backward")
            total += found.us
            clocks = ", ".join(f"{what} {count:.0f}" for what, count in found.clocks.items())
            print(
                f"{case.counts}, B={case.batch}, T={case.steps}, {which}: {found.us:.0f} us, bound "
                f"by {found.bound} (clocks of an unfold or step: {clocks})"
            )
        print(f"{'':4}both: {total:.0f} us")


if __name__ == "__main__":
    main()
