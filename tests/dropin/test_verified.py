"""Classes of ncps that somebody has changed are left alone, and those of the release are not."""

from __future__ import annotations

import ast
import compileall
import copy
import importlib.util
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import ncps.torch
import pytest
import torch

import cli_support
from fastltc import accelerate, patch_ncps
from fastltc.dropin import verified
from scripts.patched_ncps import LAYERS, PATCHES, computed, doubled

INSTALLED = Path(ncps.__path__[0])
SCRIPT = Path(__file__).parents[1] / "scripts" / "patched_ncps.py"
MODULES = [name.rpartition(".")[2] for name in verified._DIGESTS]

# Layers of all kinds: what of them is swapped, and why the rest is not.
REPORTS = """
import torch
from ncps.torch import CfC, LTC
from ncps.wirings import AutoNCP
from fastltc import accelerate
for layer in LTC(3, AutoNCP(9, 2), mixed_memory=True), CfC(3, 5), CfC(3, AutoNCP(9, 2)):
    report = accelerate(layer)
    print(len(report.swapped), report.left_alone.get("", ""))
"""
ALL_SWAPPED = ["2 ", "2 ", "5 "]


def execute(arguments: list[str], folder: Path, **environment: str) -> tuple[str, str]:
    command = [sys.executable, *arguments]
    status, out, err = cli_support.execute(command, folder, 240, **environment)
    assert status == 0, err
    return out, err


def classes() -> Iterator[type]:
    """Return the classes that fastltc computes."""
    for name in verified._DIGESTS:
        for found in vars(sys.modules[name]).values():
            if isinstance(found, type) and found.__module__ == name:
                yield found


@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_class_is_left_alone(name: str) -> None:
    kind, reason, patched = PATCHES[name]
    before = LAYERS[kind]()
    with patch_ncps() as patch:
        with patched():
            layer = LAYERS[kind]()
            expected = computed(layer)
            left = accelerate(layer).left_alone[""]
            assert reason in left
            assert torch.equal(computed(layer), expected)
            assert list(patch.left_alone) == [left]
            assert not patch.swapped
        LAYERS[kind]()
    assert patch.swapped == {kind.split()[-1]: 1}
    assert not accelerate(before).left_alone


def test_what_was_swapped_before_a_patch_stays_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LAYERS["CfC"]()
    accelerate(layer)
    expected = computed(layer)
    monkeypatch.setattr(ncps.torch.CfCCell, "forward", doubled(ncps.torch.CfCCell.forward))
    assert torch.equal(computed(layer), expected)
    assert torch.equal(computed(pickle.loads(pickle.dumps(layer))), expected)
    with pytest.raises(ValueError, match=r"CfCCell\.forward is not that of ncps 1\.0\.1"):
        type(layer)(3, 5)


@pytest.mark.parametrize("options", [[], ["-O"], ["-OO"]], ids=str)
def test_a_script_that_patches_computes_what_python_does(
    options: list[str], tmp_path: Path
) -> None:
    expected = execute([*options, str(SCRIPT)], tmp_path)
    out, err = execute([*options, "-m", "fastltc.cli", "run", "--report", str(SCRIPT)], tmp_path)
    assert (out, "") == expected
    swapped, left = err.splitlines()[:2], err.splitlines()[2:]
    assert swapped == ["fastltc: 2 x CfC of ncps swapped", "1 x LTC of ncps swapped"]
    assert sum(int(line.split()[0]) for line in left) == len(PATCHES)
    for _, reason, _ in PATCHES.values():
        assert any(reason in line for line in left)


def test_patches_made_before_fastltc_is_imported(tmp_path: Path) -> None:
    changes = """
import ncps.torch, patched_ncps
from ncps.torch import cfc, cfc_cell, lstm
cfc_cell.LeCun = patched_ncps.OtherLeCun
lstm.LSTMCell = ncps.torch.ltc.LSTMCell = patched_ncps.OtherMemory
ncps.torch.WiredCfCCell.forward = patched_ncps.doubled(ncps.torch.WiredCfCCell.forward)
"""
    out, _ = execute(["-c", changes + REPORTS], tmp_path, PYTHONPATH=str(SCRIPT.parent))
    assert out.splitlines() == [
        "0 of its lstm: patched_ncps.OtherMemory is no class of ncps 1.0.1",
        "0 of its rnn_cell: ncps.torch.cfc_cell.LeCun is not that of ncps 1.0.1",
        "0 of its rnn_cell: ncps.torch.wired_cfc_cell.WiredCfCCell.forward is not that of ncps "
        "1.0.1",
    ]


def test_another_name_for_a_class_in_ncps_changes_nothing(tmp_path: Path) -> None:
    changes = """
import ncps.torch
LTC = ncps.torch.LTC
class Other(LTC): pass
ncps.torch.LTC = ncps.torch.CfCCell = Other
"""
    out, _ = execute(["-c", changes + REPORTS.replace("LTC(", "ncps.torch.ltc.LTC(")], tmp_path)
    assert out.splitlines() == ALL_SWAPPED


def test_every_function_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = 0
    for kind in classes():
        assert verified.difference(kind) is None
        for name, value in list(vars(kind).items()):
            if name == "__init__" or not isinstance(value, (FunctionType, property)):
                continue
            with monkeypatch.context() as patch:
                if isinstance(value, property):
                    patch.setattr(kind, name, property(doubled(value.fget)))
                else:
                    patch.setattr(kind, name, doubled(value))
                reason = f"{kind.__module__}.{kind.__name__}.{name} is not that of ncps 1.0.1"
                assert verified.difference(kind) == reason
                patch.delattr(kind, name)
                assert verified.difference(kind) == reason
            found += 1
        assert verified.difference(kind) is None
    assert found > 35


# What leaves a class as it is


def looked_at_by_dynamo() -> None:
    torch.compile(LAYERS["CfC"](), backend="eager")(torch.zeros(1, 1, 3))


def traced() -> None:
    events = []
    sys.settrace(lambda *event: events.append(event))
    try:
        computed(LAYERS["LTC"]())
    finally:
        sys.settrace(None)
    assert events


def profiled() -> None:
    events = []
    sys.setprofile(lambda *event: events.append(event))
    try:
        computed(LAYERS["LTC"]())
    finally:
        sys.setprofile(None)
    assert events


def monitored() -> None:
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None:
        pytest.skip("from Python 3.12")
    monitoring.use_tool_id(monitoring.COVERAGE_ID, "test")
    try:
        monitoring.register_callback(
            monitoring.COVERAGE_ID, monitoring.events.LINE, lambda *event: None
        )
        monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)
        computed(LAYERS["LTC"]())
        assert all(verified.difference(kind) is None for kind in classes())
    finally:
        monitoring.free_tool_id(monitoring.COVERAGE_ID)


def run_often() -> None:
    for layer in LAYERS.values():
        made = layer()
        for _ in range(30):  # specialized by the interpreter
            computed(made)


def copied() -> None:
    for layer in LAYERS.values():
        pickle.loads(pickle.dumps(copy.deepcopy(layer())))


@pytest.mark.parametrize(
    "watch",
    [looked_at_by_dynamo, traced, profiled, monitored, run_often, copied],
    ids=lambda watch: watch.__name__,
)
def test_who_only_watches_does_not_count(watch: Callable[[], None]) -> None:
    watch()
    assert [verified.difference(kind) for kind in classes()] == [None] * 7
    for layer in LAYERS.values():
        assert not accelerate(layer()).left_alone


def test_values_that_no_code_refers_to_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in classes():
        with monkeypatch.context() as patch:
            patch.setattr(kind, "__doc__", "another text")
            patch.setattr(kind, "note", "a value of one's own", raising=False)
            assert verified.difference(kind) is None
            patch.setattr(kind, "note", lambda self: None)
            name = f"{kind.__module__}.{kind.__name__}.note"
            assert verified.difference(kind) == f"{name} is not in ncps 1.0.1"


def test_functions_that_draw_initial_values_may_be_replaced(monkeypatch: Any) -> None:
    """As libraries do for a model whose weights are loaded anyway."""
    monkeypatch.setattr(torch.nn.init, "xavier_uniform_", lambda tensor: tensor)
    assert not accelerate(LAYERS["CfC"]()).left_alone


def test_a_constructor_may_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ncps.torch.CfC.__init__
    made = []

    def counting(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(ncps.torch.CfC, "__init__", counting)
    layer = LAYERS["CfC"]()
    assert not accelerate(layer).left_alone
    assert made == [layer]


# Files of ncps


def load(module: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Import a file in the place of a module of ncps.torch, and return its classes."""
    spec = importlib.util.spec_from_file_location(f"ncps.torch.{module}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    monkeypatch.setitem(sys.modules, spec.name, loaded)
    found = vars(loaded).values()
    return [kind for kind in found if getattr(kind, "__module__", None) == spec.name]


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


class _OtherNumbers(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        changes = isinstance(node.value, (int, float)) and not isinstance(node.value, bool)
        return ast.Constant(node.value + 1) if changes else node


SAME: dict[str, Callable[[str], bytes]] = {
    "as it is": lambda text: text.encode(),
    "comments": lambda text: text.replace("):\n", "):  # a comment\n\n    # one\n").encode(),
    "carriage returns": lambda text: text.replace("\n", "\r\n").encode(),
    "byte order mark": lambda text: text.encode("utf-8-sig"),
    "latin-1": lambda text: f"# coding: latin-1\n# \xe4\n{text}".encode("latin-1"),
    "another layout": lambda text: ast.unparse(ast.parse(text)).encode(),
    "no docstrings": lambda text: ast.unparse(_WithoutDocstrings().visit(ast.parse(text))).encode(),
}
OTHER: dict[str, Callable[[str], bytes]] = {
    "a name more": lambda text: f"{text}\nname = None\n".encode(),
    "other numbers": lambda text: ast.unparse(_OtherNumbers().visit(ast.parse(text))).encode(),
    "another name": lambda text: text.replace("forward", "forwards").encode(),
    "another operator": lambda text: text.replace(" + ", " - ").replace("==", "!=").encode(),
}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("change", [*SAME, *OTHER])
def test_the_code_of_a_file_counts_not_its_text(
    module: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"{module}.py"
    text = (INSTALLED / "torch" / path.name).read_text(encoding="utf-8")
    changed = {**SAME, **OTHER}[change](text)
    assert change == "as it is" or changed != text.encode()
    path.write_bytes(changed)
    loaded = load(module, path, monkeypatch)
    assert loaded
    for kind in loaded:
        reason = verified.difference(kind)
        if change in SAME:
            assert reason is None
        else:
            name = f"ncps.torch.{module}"
            assert reason == f"{name} is not that of ncps 1.0.1: other code in {path} (1.0.1)"


@pytest.fixture
def copied_ncps(tmp_path: Path) -> Path:
    """Return a copy of the installed ncps, without its caches, and the folder to be on the path."""
    folder = tmp_path / "lib" / "ncps"
    shutil.copytree(INSTALLED, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_neither_optimization_nor_a_cache_counts(copied_ncps: Path, tmp_path: Path) -> None:
    caches = copied_ncps / "torch" / "__pycache__"
    for options, cached in (
        (["-B"], 0),
        (["-X", "no_debug_ranges"], 7),
        ([], 7),  # from the cache of the one before
        (["-O"], 14),
        (["-OO"], 21),
    ):
        environment = {"PYTHONPATH": str(copied_ncps.parent), "PYTHONDONTWRITEBYTECODE": ""}
        out, _ = execute([*options, "-c", REPORTS], tmp_path, **environment)
        assert out.splitlines() == ALL_SWAPPED, options
        assert len(list(caches.glob("*"))) == cached


def test_another_release_is_left_alone(copied_ncps: Path, tmp_path: Path) -> None:
    path = copied_ncps / "torch" / "ltc_cell.py"
    path.write_text(path.read_text(encoding="utf-8").replace("ode_unfolds=6", "ode_unfolds=7"))
    out, _ = execute(["-c", REPORTS], tmp_path, PYTHONPATH=str(copied_ncps.parent))
    reason = f"ncps.torch.ltc_cell is not that of ncps 1.0.1: other code in {path}"
    assert out.splitlines() == [f"0 of its rnn_cell: {reason}", *ALL_SWAPPED[1:]]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("source", [False, True])
def test_code_without_its_source_is_left_alone(
    source: bool, packed: bool, copied_ncps: Path, tmp_path: Path
) -> None:
    if not source:
        compileall.compile_dir(copied_ncps, legacy=True, quiet=1)
        for path in copied_ncps.rglob("*.py"):
            path.unlink()
    lib = copied_ncps.parent
    if packed:
        shutil.make_archive(str(tmp_path / "lib"), "zip", lib)
        lib = tmp_path / "lib.zip"
    out, _ = execute(["-c", REPORTS], tmp_path, PYTHONPATH=str(lib))
    if source:
        assert out.splitlines() == ALL_SWAPPED
    else:
        reason = "ncps.torch.{} has no source to compare with that of ncps 1.0.1"
        assert out.splitlines() == [f"0 {reason.format(m)}" for m in ("ltc", "cfc", "cfc")]


def test_a_script_runs_with_another_distribution_named_ncps(
    copied_ncps: Path, tmp_path: Path
) -> None:
    (copied_ncps / "torch" / "lstm.py").rename(copied_ncps / "torch" / "memory.py")
    for path in (copied_ncps / "torch").glob("*.py"):
        path.write_text(path.read_text(encoding="utf-8").replace(".lstm ", ".memory "))
    (tmp_path / "script.py").write_text("from ncps.torch import LTC; print(LTC(2, 3).rnn_cell)")
    environment = {"PYTHONPATH": str(copied_ncps.parent)}
    expected = execute(["script.py"], tmp_path, **environment)
    assert expected == (
        "LTCCell(\n  (make_positive_fn): Softplus(beta=1.0, threshold=20.0)\n"
        "  (_clip): ReLU()\n)\n",
        "",
    )
    run = ["-m", "fastltc.cli", "run"]
    assert execute([*run, "script.py"], tmp_path, **environment) == expected
    _, report = execute([*run, "--report", "script.py"], tmp_path, **environment)
    assert report == "fastltc: ncps is left alone: No module named 'ncps.torch.lstm'\n"
