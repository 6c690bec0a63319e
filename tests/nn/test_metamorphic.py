"""What may not matter does not: threads of either pass, instruction set, order, padding, strides.

Every combination of them is compared with one thread, baseline instructions and the batch as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastltc._extension import load_runtime

# Of the largest value of a result; rounding of sums in another order.
BOUND = {"float32": 1e-5, "float64": 1e-13}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    folder, found = tmp_path_factory.mktemp("metamorphic"), {}
    for name in load_runtime().cpu_info()["supported"]:
        file = folder / f"{name}.npz"
        worker = Path(__file__).with_name("metamorphic.py")
        environment = {**os.environ, "FASTLTC_CPU": name}
        subprocess.run([sys.executable, worker, file], env=environment, check=True)
        found[name] = dict(np.load(file))
    assert "baseline" in found
    return found


def test_every_way_gives_the_same(results: dict[str, dict[str, np.ndarray]]) -> None:
    first, compared, worst = results["baseline"], 0, dict.fromkeys(BOUND, 0.0)
    for isa, found in results.items():
        assert found.keys() == first.keys()
        for key, value in found.items():
            case, dtype, _, _, way, number = key.split(",")
            other = way if way == "expanded" else "as it is"
            wanted = first[f"{case},{dtype},1,1,{other},{number}"]
            assert np.isfinite(value).all(), (isa, key)
            error = float(np.abs(value - wanted).max() / max(np.abs(wanted).max(), 1e-3))
            assert error < BOUND[dtype], (isa, key)
            worst[dtype] = max(worst[dtype], error)
            compared += 1
    print(compared, worst)
    assert compared > 500 * len(results)


def test_the_same_call_gives_the_same_bits(results: dict[str, dict[str, np.ndarray]]) -> None:
    for isa, found in results.items():
        for key, value in found.items():
            if ",again," in key:
                same = found[key.replace("again", "as it is")]
                assert np.array_equal(value, same), (isa, key)


def test_threads_change_no_bit_of_a_masked_product(
    results: dict[str, dict[str, np.ndarray]],
) -> None:
    for isa, found in results.items():
        for key, value in found.items():
            case, dtype, _, _, way, number = key.split(",")
            if case == "masked":
                one = found[f"{case},{dtype},1,1,{way},{number}"]
                assert np.array_equal(value, one), (isa, key)
