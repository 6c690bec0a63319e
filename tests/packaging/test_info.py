"""The report behind ``fastltc info``."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch

from fastltc import info


def test_collected_facts_are_those_of_this_process() -> None:
    collected = info.collect()
    assert collected["fastltc"] == importlib.metadata.version("fastltc")
    assert collected["torch"]["version"] == str(torch.__version__)
    assert collected["packages"]["ncps"] == importlib.metadata.version("ncps")
    assert collected["operators"]["error"] is None
    assert collected["operators"]["path"].endswith("_C.so")
    assert collected["processors"] >= 1
    json.dumps(collected)


def test_threads_are_those_of_torch() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert info.collect()["torch"]["threads"] == before + 1
    finally:
        torch.set_num_threads(before)


def test_the_report_says_everything_that_was_collected() -> None:
    collected = info.collect()
    report = info.format_report(collected)
    build = collected["build"]
    for text in (
        collected["fastltc"],
        collected["torch"]["version"],
        build["torch"],
        build["compiler"],
        build["cuda_reason"],
        "compiled baseline",
        f"chosen {collected['cpu']['chosen']}",
        f"{collected['torch']['threads']} of {collected['processors']}",
    ):
        assert text in report


@pytest.mark.parametrize("built", [True, False])
def test_the_report_says_whether_cuda_was_built(built: bool) -> None:
    collected = info.collect()
    collected["build"].update(cuda=built, cuda_reason="because")
    expected = "CUDA kernels         built: because" if built else "not built: because"
    assert expected in info.format_report(collected)
