"""What the numbers were measured on, for the JSON: no name of a host, no user."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

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


def gpu() -> dict[str, Any] | None:
    """Return what the current GPU is and what drives it, or None where torch sees none."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties()
    driver = None
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        output = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        driver = output[0].strip() if output else None
    return {
        "name": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "driver": driver,
        "cudnn": torch.backends.cudnn.version(),
    }


def describe() -> dict[str, Any]:
    """Return processor, instruction set, cores, GPU, system and versions."""
    collected = info.collect()
    return {
        "processor": processor(),
        "cores": collected["processors"],
        "instruction_set": collected["cpu"].get("chosen"),
        "gpu": gpu(),
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
