"""What the numbers were measured on, for the JSON: no name of a host, no user."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from fastltc import info


def processor() -> str:
    """Return the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def load_average() -> float | None:
    """Return how many tasks ran or waited to, on average over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def describe() -> dict[str, Any]:
    """Return processor, instruction set, cores, system and versions."""
    collected = info.collect()
    return {
        "processor": processor(),
        "cores": collected["processors"],
        "instruction_set": collected["cpu"].get("chosen"),
        "system": collected["platform"],
        "python": collected["python"],
        "compiler": collected["build"].get("compiler"),
        "build_type": collected["build"].get("build_type"),
        "versions": {
            "fastltc": collected["fastltc"],
            "torch": collected["torch"]["version"],
            **collected["packages"],
        },
    }
