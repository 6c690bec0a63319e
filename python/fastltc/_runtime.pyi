"""Types of the compiled library without torch, for type checkers; see fastltc.runtime."""

from collections.abc import Iterable
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

def build_info() -> dict[str, Any]: ...
def cpu_info() -> dict[str, Any]: ...
def sigmoid_limit(repeats: int) -> int: ...
def unchanged(seen: tuple[Any, ...]) -> bool: ...

class _Sizes:
    @property
    def input_size(self) -> int: ...
    @property
    def output_size(self) -> int: ...
    @property
    def state_size(self) -> int: ...
    @property
    def time_unit(self) -> float: ...

class Network(_Sizes):
    def __init__(
        self,
        input_size: int,
        layers: list[dict[str, Any]],
        tensors: dict[str, npt.NDArray[Any]],
        time_unit: float = 1.0,
        medium_sigmoid: bool = False,
    ) -> None: ...

class Session(_Sizes):
    def __new__(cls, network: Network, streams: int = 1) -> Self: ...
    @property
    def network(self) -> Any: ...
    @property
    def streams(self) -> int: ...
    def step(
        self,
        x: npt.ArrayLike,
        dt: npt.ArrayLike = 1.0,
        out: npt.NDArray[np.float32] | None = None,
        reset: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.float32]: ...
    def run(
        self,
        xs: npt.ArrayLike,
        timespans: npt.ArrayLike | None = None,
        out: npt.NDArray[np.float32] | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.float32]: ...
    def reset(self, streams: SupportsIndex | Iterable[SupportsIndex] | None = None) -> None: ...
    def get_state(self) -> npt.NDArray[np.float32]: ...
    def set_state(self, state: npt.ArrayLike) -> None: ...
