"""What fastltc-runtime holds: enough for itself, and nothing that needs torch."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loose_modules import load_module

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "golden" / "models" / "ltc.safetensors"
try:
    import tomllib
except ImportError:  # before Python 3.11
    import tomli as tomllib


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The assembled sources, with the library of this installation."""
    path = ROOT / "runtime" / "fastltc_runtime_build.py"
    backend = load_module(path)
    folder = backend.assemble(tmp_path_factory.mktemp("runtime"))
    from fastltc import _extension

    library = Path(_extension.library_path("_runtime"))
    (folder / "python" / "fastltc_runtime" / "fastltc" / library.name).symlink_to(library)
    # What it needs, alone: in the folder where that is, fastltc may be, too.
    (folder / "needed").mkdir()
    for name in ("numpy", "safetensors"):
        package = Path(importlib.import_module(name).__path__[0])
        for part in (package, package.with_name(f"{name}.libs")):
            if part.exists():
                (folder / "needed" / part.name).symlink_to(part)
    return folder


def run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with what the distribution brings, numpy and safetensors."""
    # -S: no other distribution.
    program = (
        "import sys\n"
        "sys.path += sys.argv[1].split(';')\n"
        "for name in ('torch', 'click', 'sklearn', 'ncps', 'networkx', 'rich', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "exec(sys.argv.pop(2))\n"
    )
    folders = [str(tree / "python"), str(tree / "needed")]
    return subprocess.run(
        [sys.executable, "-S", "-c", program, ";".join(folders), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tree,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )


def test_every_module_that_is_imported_is_there(tree: Path) -> None:
    package = tree / "python" / "fastltc_runtime" / "fastltc"
    for path in package.rglob("*.py"):
        # Names that a type checker alone reads, and those imported at first use, may be elsewhere.
        statements = [
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        for node in statements:
            names = [alias.name for alias in node.names]
            module = getattr(node, "module", None) or ""
            level = getattr(node, "level", 0)
            assert not {name.split(".")[0] for name in [module, *names]} & {"torch", "click"}
            if level:
                base = path.parents[level - 1].joinpath(*module.split(".") if module else [])
            elif module.split(".")[0] == "fastltc":
                base = package.joinpath(*module.split(".")[1:])
            else:
                continue
            assert base.with_suffix(".py").is_file() or base.is_dir(), f"{path}: {module}"
    assert not (package / "nn").exists()
    assert not (package / "cli").exists()


def test_the_project_that_is_assembled(tree: Path) -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = tomllib.loads((tree / "pyproject.toml").read_text())
    assert project["project"]["version"] == whole["project"]["version"]
    assert project["project"]["name"] == "fastltc-runtime"
    assert {d.split(">")[0] for d in project["project"]["dependencies"]} == {"numpy", "safetensors"}
    assert project["project"]["scripts"] == whole["project"]["scripts"]
    assert project["build-system"]["build-backend"] == "scikit_build_core.build"
    assert "backend-path" not in project["build-system"]
    for name in ("requires-python", "license", "license-files"):
        assert project["project"][name] == whole["project"][name]


def test_a_session_and_the_command(tree: Path, tmp_path: Path) -> None:
    program = (
        "import fastltc_runtime, fastltc, numpy\n"
        "from fastltc.runtime import Session\n"
        "session = Session.load(sys.argv[2])\n"
        "print(session.step(numpy.zeros(session.input_size, numpy.float32)).shape)\n"
        "from fastltc.command import main\n"
        "main(sys.argv[3:])"
    )
    done = run(tree, program, str(MODEL), "export", str(MODEL), "--c", str(tmp_path), "--int8")
    assert done.returncode == 0, done.stderr
    assert "flash" in done.stdout
    assert (tmp_path / "model.c").is_file()
    done = run(tree, program, str(MODEL), "info", "--json")
    collected = json.loads(done.stdout.split("\n", 1)[1])
    assert collected["cpu"]["error"] is None
    assert collected["torch"]["version"] is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["export", "no-such-file", "--c", "x"], "no-such-file"),
        (["export", __file__, "--c", "x"], "safetensors"),
        (["export", str(MODEL), "--c", "x", "--name", "a-b"], "name: expected a C identifier"),
        (["export", str(MODEL), "--c", "x", "--calibration", "y"], "expected --int8 or --fixed"),
        (["export", str(MODEL), "--c", "x", "--int8", "--calibration", "y.npy"], "y.npy"),
        (["export", str(MODEL), "--c", "x", "--int8", "--fixed"], "not allowed with"),
        ([], "required"),
    ],
)
def test_a_users_mistake_is_one_message(tree: Path, arguments: list[str], text: str) -> None:
    program = "import fastltc_runtime\nfrom fastltc.command import main\nmain(sys.argv[2:])"
    done = run(tree, program, *arguments)
    assert done.returncode != 0
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_there_says_where_it_is(tree: Path) -> None:
    for name in ("fastltc.LTC", "fastltc.nn", "fastltc.exporting.describe"):
        program = f"import fastltc_runtime, fastltc, fastltc.exporting\n{name}"
        done = run(tree, program)
        assert f"{name}: not in fastltc-runtime" in done.stderr
        assert "pip install fastltc" in done.stderr
    assert "AttributeError" in run(tree, "import fastltc_runtime, fastltc\nfastltc.muddle").stderr


def test_all_of_fastltc_goes_first(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "fastltc").mkdir()
    (tmp_path / "fastltc" / "__init__.py").write_text("whole = True\n")
    program = (
        f"sys.path.append({str(tmp_path)!r})\nimport fastltc_runtime, fastltc\nprint(fastltc.whole)"
    )
    assert run(tree, program).stdout == "True\n"
