"""CUDA graphs and streams of what the tests run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def capture(step: Callable[[], Any], waiting: str = "default") -> tuple[torch.cuda.CUDAGraph, Any]:
    """Capture a call, after one on a stream of its own, and return the graph and what came out.

    ``waiting``: what is done where that first call waits for the device: "default" or "error".
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    torch.cuda.set_sync_debug_mode(waiting)
    try:
        with torch.cuda.stream(side):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    return graph, captured


def on_two_streams(step: Callable[[], Any]) -> list[Any]:
    """What a call returns, twenty times on each of two streams at once."""
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    outcomes = []
    for _ in range(20):
        for stream in streams:
            with torch.cuda.stream(stream):
                outcomes.append(step())
    torch.cuda.synchronize()
    return outcomes
