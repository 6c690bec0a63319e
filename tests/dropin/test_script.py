"""`fastltc run`: a script behaves as under python, and trains to the same losses in less time."""

from __future__ import annotations

import json
import py_compile
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cli_support

TRAINING = Path(__file__).parents[1] / "scripts" / "train_with_ncps.py"
PYTHON = [sys.executable]
FASTLTC = [sys.executable, "-m", "fastltc.cli", "run"]

PRINTS_ALL = """
import atexit, os, pickle, sys
class Thing: pass
print(__name__, __file__, __package__)
print(sys.argv, sys.path[0], len(sys.path), __spec__ and __spec__.name)
print("torch" in sys.modules, "ncps" in sys.modules, os.environ.get("OMP_WAIT_POLICY"))
print(sys.modules["__main__"].Thing is Thing, type(pickle.loads(pickle.dumps(Thing()))))
"""
SCRIPTS = {
    "end": PRINTS_ALL + "print(__builtins__, sorted(globals()))",
    "exit 0": "import sys; sys.exit()",
    "exit 3": "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)",
    "exit message": "raise SystemExit('a message')",
    "exception": "def f():\n    raise OSError(2, 'no such thing', 'name')\nf()\n",
    "chained": "try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('v') from e\n",
    "group": "raise BaseException('base')",
    "click": "import click\nraise click.ClickException('shown by python as a traceback')",
    "click context": "import click\nprint(click.get_current_context(silent=True))",
    "click abort": "import click\nraise click.Abort",
    "syntax": "x = (\n",
    "interrupt": "import atexit\natexit.register(print, 'bye')\nraise KeyboardInterrupt\n",
    "interrupt, files": (
        "file = open('log.txt', 'w')\nfile.write('not flushed')\n"
        "class Last:\n    def __del__(self):\n        print('deleted')\n"
        "last = Last()\nraise KeyboardInterrupt\n"
    ),
    "last exception": (
        "import atexit, sys\nprint(hasattr(sys, 'last_value'))\n"
        "atexit.register(lambda: print(sys.last_type, sys.last_value))\n1 / 0\n"
    ),
    "hook": "import sys\nsys.excepthook = lambda *e: print('own', e[1])\nraise ValueError('v')",
    "exit functions": (
        "import atexit, pickle\nclass Thing: pass\n"
        "@atexit.register\ndef _():\n    print(pickle.loads(pickle.dumps(Thing())))\n"
    ),
    "future": "print(__annotations__)\nx: undefined_name = 1 if False else 2",
    "other processes": (
        "import multiprocessing\ndef square(x):\n    return x * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(square, [2, 3]))\n"
    ),
    "import beside": "import beside; print(beside.__file__)",
    "import error": "import no_such_module_at_all",
    "encoding": "# coding: latin-1\nprint(ascii('\xe4'))",
}


def execute(command: list[str], folder: Path, **environment: str) -> tuple[int, str, str]:
    status, out, err = cli_support.execute(command, folder, **environment)
    addresses = re.compile(r" at 0x[0-9a-f]+")
    return status, addresses.sub("", out), addresses.sub("", err)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_behaves_as_under_python(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "beside.py").touch()
    (folder / "script.py").write_text(SCRIPTS[name], encoding="latin-1")
    arguments = ["sub/script.py", "--help", "-x", "--report", "a b"]
    expected = execute([*PYTHON, *arguments], tmp_path)
    written = {path: path.read_text() for path in tmp_path.glob("*.txt")}
    assert written or "files" not in name
    for path in written:
        path.unlink()
    assert execute([*FASTLTC, *arguments], tmp_path) == expected
    assert {path: path.read_text() for path in tmp_path.glob("*.txt")} == written
    assert expected[0] == {
        "exit 3": 3,
        "interrupt": -signal.SIGINT,
        "interrupt, files": -signal.SIGINT,
        "click context": 0,
        "end": 0,
        "exit 0": 0,
        "exit functions": 0,
        "other processes": 0,
        "import beside": 0,
        "encoding": 0,
    }.get(name, 1)


AT_THE_END = """
import atexit, threading, time
@atexit.register
def _():
    import beside
    print(sys.argv, pickle.loads(pickle.dumps(Thing())).__class__ is Thing, beside.__name__)
def late():
    time.sleep(0.3)
    print(pickle.loads(pickle.dumps(Thing())).__class__ is Thing)
threading.Thread(target=late).start()
print(sorted(globals()))
if "exception" in sys.argv:
    raise ValueError("v")
if "interrupt" in sys.argv:
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize("end", ["normal", "exception", "interrupt"])
@pytest.mark.parametrize("safe", [False, True])
def test_modules_folders_zip_files_and_compiled_files(safe: bool, end: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for path in (package, tmp_path):
        (path / "beside.py").touch()
    (package / "__init__.py").touch()
    for name in ("__main__", "other"):
        (package / f"{name}.py").write_text(PRINTS_ALL + AT_THE_END)
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as packed:
        for path in package.iterdir():
            packed.write(path, path.name)
    py_compile.compile(str(package / "other.py"), str(tmp_path / "compiled.pyc"))
    environment = {"PYTHONSAFEPATH": "1" if safe else ""}
    if safe:
        environment["PYTHONPATH"] = str(tmp_path)
    for target in (
        ["-m", "package"],
        ["-m", "package.other"],
        ["package"],
        ["packed.zip"],
        ["compiled.pyc"],
    ):
        arguments = [*target, "-m", end]
        expected = execute([*PYTHON, *arguments], tmp_path, **environment)
        assert expected[1].count("True") >= 3
        assert execute([*FASTLTC, *arguments], tmp_path, **environment) == expected


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["no_such_file.py"], 2, "can't open file"),
        (["-m", "no_such_module"], 1, "No module named no_such_module"),
        (["-m", "os.no_such_module"], 1, "Error while finding module specification"),
        (["."], 1, "can't find '__main__' module in "),
    ],
)
def test_what_cannot_be_run(arguments: list[str], status: int, text: str, tmp_path: Path) -> None:
    found = execute([*FASTLTC, *arguments], tmp_path)
    assert found == execute([*PYTHON, *arguments], tmp_path)
    assert found[:2] == (status, "")
    assert text in found[2]


def test_no_script_is_a_mistake(tmp_path: Path) -> None:
    status, out, err = execute(FASTLTC, tmp_path)
    assert (status, out) == (2, "")
    assert "Missing argument 'SCRIPT'" in err


def test_a_script_may_ask_for_ncps_before_it_imports_it(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import importlib.util\n"
        "if importlib.util.find_spec('ncps.torch'):\n"
        "    from ncps.torch import LTC\n"
        "    LTC(3, 4)\n"
    )
    found = execute([*FASTLTC, "--report", "script.py"], tmp_path)
    assert found == (0, "", "fastltc: 1 x LTC of ncps swapped\n")


def test_environment_variables_set_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, sys\n"
        "assert 'torch' not in sys.modules\n"
        "os.environ['OMP_NUM_THREADS'] = '1'\n"
        "from ncps.torch import LTC\n"
        "import torch\n"
        "print(torch.get_num_threads(), type(LTC(3, 4)).__module__)\n"
    )
    status, out, err = execute([*FASTLTC, "--report", "script.py"], tmp_path, OMP_NUM_THREADS="2")
    assert (status, out) == (0, "1 fastltc.dropin.conversions\n")
    assert err == "fastltc: 1 x LTC of ncps swapped\n"


def test_the_report_of_a_script_without_ncps(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("raise SystemExit(5)")
    found = execute([*FASTLTC, "--report", "script.py"], tmp_path)
    assert found == (5, "", "fastltc: ncps.torch was not imported\n")


def test_a_training_script_reaches_the_same_losses(tmp_path: Path) -> None:
    runs = {}
    for name, command in (("python", PYTHON), ("fastltc run", FASTLTC)):
        status, out, err = execute([*command, str(TRAINING)], tmp_path, OMP_NUM_THREADS="1")
        assert status == 0, err
        *records, end = (json.loads(line) for line in out.splitlines())
        runs[name] = records
        print(f"{name}: {end['seconds']:.2f} s, LTC of {end['made']}")
        assert end["made"] == (
            "ncps.torch.ltc" if name == "python" else "fastltc.dropin.conversions"
        )
    assert len(runs["python"]) == 2 * 3 * 3
    for theirs, ours in zip(runs["python"], runs["fastltc run"], strict=True):
        # Six steps of Adam spread the rounding of the first.
        tolerance = {"float32": 1e-4, "float64": 1e-10}[theirs["dtype"]]
        expected = theirs.pop("loss")
        assert ours.pop("loss") == pytest.approx(expected, rel=tolerance)
        assert ours == theirs


def test_layers_that_a_script_changes_train_as_under_python() -> None:
    """What is put into a layer after it was made, which here is a layer of fastltc."""
    script = str(Path(__file__).parents[1] / "scripts" / "changed_layers.py")
    expected, actual = (
        [json.loads(line) for line in output.splitlines()]
        for output in (
            subprocess.run([*program, script], check=True, capture_output=True, text=True).stdout
            for program in (PYTHON, FASTLTC)
        )
    )
    assert len(actual) == len(expected) > 20
    as_made = {kind: values for kind, name, values in expected if name == "as made"}
    for (kind, name, ours), (_, _, theirs) in zip(actual, expected, strict=True):
        tolerance = 1e-5 if name == "quantized" else 1e-10
        assert ours == pytest.approx(theirs, rel=tolerance), (kind, name)
        assert name == "as made" or theirs != as_made.get(kind), "the change makes a difference"
