"""What this installation is made of: the content of ``fastltc info``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from fastltc import _extension
from fastltc._version import own_version


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _collect_torch() -> dict[str, Any]:
    try:
        import torch
    # A broken installation of torch fails in other ways than by ImportError; it is to be reported.
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        return {"version": None, "cuda": None, "threads": None, "error": text}
    version, threads = str(torch.__version__), torch.get_num_threads()
    return {"version": version, "cuda": torch.version.cuda, "threads": threads, "error": None}


def _collect_operators(torch_error: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {"path": None, "cuda_path": None, "cuda_error": None, "error": None}
    if torch_error is not None:
        return {**result, "error": "they need torch, which cannot be imported"}
    try:
        result["path"] = _extension.load_operators()
    except ImportError as error:
        return {**result, "error": str(error)}
    result["cuda_path"], result["cuda_error"] = _extension.load_cuda_operators()
    return result


def _collect_runtime() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (cpu, build); what cannot be told holds an ``error`` instead."""
    try:
        runtime = _extension.load_runtime()
    except ImportError as error:
        return {"error": str(error)}, {"error": str(error)}
    build = {**runtime.build_info(), "error": None}
    try:
        return {**runtime.cpu_info(), "error": None}, build
    # FASTLTC_CPU asks for what is not possible here.
    except ValueError as error:
        return {"error": str(error)}, build


def collect() -> dict[str, Any]:
    """Return versions, instruction sets, CUDA support and threads of this installation.

    Never raises for a broken installation: the part that cannot be told has an ``error`` text.

    Returns:
        A dict that ``json.dumps`` takes, with the keys ``fastltc``, ``python``, ``platform``,
        ``torch`` (version, cuda, threads), ``packages`` (name to version), ``build`` (torch it was
        built against, compiler, build_type, cuda, cuda_reason), ``cpu`` (instruction sets compiled,
        supported and chosen, lanes), ``processors`` and ``operators`` (path of the library, that
        of its CUDA kernels, or why those are not loaded).

    Example:
        >>> from fastltc import info
        >>> sorted(info.collect()["cpu"]["lanes"])
        ['float32', 'float64']
    """
    torch_info = _collect_torch()
    cpu, build = _collect_runtime()
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return {
        "fastltc": own_version(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch_info,
        "packages": {name: _version(name) for name in ("ncps", "numpy")},
        "build": build,
        "cpu": cpu,
        "processors": processors,
        "operators": _collect_operators(torch_info["error"]),
    }


def format_report(info: dict[str, Any] | None = None) -> str:
    """Return ``info`` as aligned lines of text, the output of ``fastltc info``.

    Args:
        info: What `collect` returned; None collects it now.

    Example:
        >>> from fastltc import info
        >>> print(info.format_report())
        fastltc              ...
        torch                ...
        ...
    """
    if info is None:
        info = collect()
    torch, build, cpu, operators = (info[key] for key in ("torch", "build", "cpu", "operators"))

    if torch["error"]:
        torch_text = f"not available: {torch['error']}"
    else:
        torch_text = f"{torch['version']}, CUDA {torch['cuda'] or 'not in this build of torch'}"
    lines = [
        ("fastltc", info["fastltc"] or "not installed as a package"),
        ("torch", torch_text),
    ]
    if build["error"]:
        lines.append(("build", f"unknown: {build['error']}"))
    else:
        built = "built" if build["cuda"] else "not built"
        lines += [
            ("built against torch", build["torch"]),
            ("compiler", f"{build['compiler']}, {build['build_type']}"),
            ("CUDA kernels", f"{built}: {build['cuda_reason']}"),
        ]
    lines.append(("operators", operators["path"] or f"not loaded: {operators['error']}"))
    if operators["path"]:
        cuda_text = operators["cuda_path"] or f"not loaded: {operators['cuda_error']}"
        lines.append(("operators for CUDA", cuda_text))
    if cpu["error"]:
        lines.append(("instruction sets", cpu["error"]))
    else:
        lanes = ", ".join(f"{count} {dtype}" for dtype, count in cpu["lanes"].items())
        lines += [
            ("instruction sets", f"compiled {', '.join(cpu['compiled'])}"),
            ("", f"supported here {', '.join(cpu['supported'])}"),
            ("", f"chosen {cpu['chosen']} (lanes: {lanes})"),
        ]
    lines += [
        ("threads", f"{torch['threads'] or 'unknown'} of {info['processors']} processors"),
        ("python", f"{info['python']}, {info['platform']}"),
        *((name, version or "not installed") for name, version in info["packages"].items()),
    ]
    return "\n".join(f"{name:<21}{text}" for name, text in lines)


if __name__ == "__main__":
    print(format_report())
