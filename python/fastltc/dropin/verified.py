"""Tells whether a class of ncps is still the one that fastltc computes.

fastltc reads the parameters of a module and computes what the module's class computes in the
release of ncps that it was verified with. A class whose functions were replaced, or that is of
another release, may compute something else. Two steps find out:

1. The file that defines the class must say what that of the release says, by a digest over its
   syntax tree. Comments, docstrings, layout, encoding and the version of Python do not count.
2. The file is then run once more, apart from the modules in use, and the class is compared with
   the one that comes of it: each function by its code, defaults and globals, what its module binds
   to the names that it uses, and what it takes of torch. The same interpreter compiled both, so
   that optimization and caches do not count, and what only watches (coverage, a debugger,
   torch.compile) leaves code as it is.

``__init__`` is not compared: what it did is in the module that it made, which is looked at when
that is swapped, and ``patch_ncps`` replaces it.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

RELEASE = "1.0.1"
"""The release of ncps that fastltc computes."""

_DIGESTS = {
    "ncps.torch.cfc": "863725916b2409c7dd78f768cd0b75e3ae9e748f6795a8cd152ed569e7574a2f",
    "ncps.torch.cfc_cell": "5fcfd106bbfe690a7c2a9dfafc4aedcefcb54a7befb580270bcdf443924b84af",
    "ncps.torch.lstm": "ebc1c9b648a06ee49e0233958f64eddae0793dc45d0d557e8c371d28e71c6627",
    "ncps.torch.ltc": "2172e3a37bb0466fad442f6b8533e1f15642db87b4f03d4dfa488b22cac5b48e",
    "ncps.torch.ltc_cell": "9ce20173be7d891e1470e1deee4a308e2f5991851adb06e75254518c8b3f4c52",
    "ncps.torch.wired_cfc_cell": "9ceab3b9568f1dd8700b3d2264979c0f42dd2b5db4f4b6006a41b56ea02d493f",
}
"""SHA-256 of the _form of each file of the release that defines such classes."""

_MISSING = object()


@dataclass(frozen=True)
class _Verified:
    """What a class is in the release."""

    made: type
    bound: dict[str, Any]
    """What its module binds to the names that the class uses."""
    attributes: frozenset[str]
    """The names of attributes that its code refers to."""
    torch_uses: dict[tuple[ModuleType, str], bool]
    """Module and name of what it takes of torch, and whether ``forward`` comes to it."""


class _OtherError(Exception):
    """What is other than in the release."""


def difference(theirs: type) -> str | None:
    """Say in what a class of ncps is other than in the release that fastltc computes.

    Returns:
        The reason, with the name of the class, function or file; None if there is no difference.

    Example:
        >>> from ncps.torch import LTCCell
        >>> difference(LTCCell) is None
        True
        >>> sigmoid, LTCCell._sigmoid = LTCCell._sigmoid, lambda self, v, mu, sigma: v
        >>> difference(LTCCell)
        'ncps.torch.ltc_cell.LTCCell._sigmoid is not that of ncps 1.0.1'
        >>> LTCCell._sigmoid = sigmoid
    """
    try:
        _check_class(theirs)
    except _OtherError as reason:
        return str(reason)
    return None


def _check_class(theirs: type) -> None:
    name = f"{theirs.__module__}.{theirs.__qualname__}"
    module = sys.modules.get(theirs.__module__)
    if module is None or theirs.__module__ not in _DIGESTS:
        raise _OtherError(f"{name} is no class of ncps {RELEASE}")
    classes = _classes(module)
    if isinstance(classes, str):
        raise _OtherError(classes)
    verified = classes.get(theirs.__qualname__)
    if verified is None or theirs.__bases__ != verified.made.__bases__:
        raise _OtherError(f"{name} is not that of ncps {RELEASE}")
    for member, expected in vars(verified.made).items():
        if member == "__init__" or not isinstance(expected, (FunctionType, property)):
            continue
        if not _is_same(vars(theirs).get(member), expected, module):
            raise _OtherError(f"{name}.{member} is not that of ncps {RELEASE}")
    for member in sorted(vars(theirs).keys() - vars(verified.made).keys()):
        # Python itself adds plain values, for copies for example.
        added = vars(theirs)[member]
        if member in verified.attributes or callable(added) or hasattr(added, "__get__"):
            raise _OtherError(f"{name}.{member} is not in ncps {RELEASE}")
    for used, expected in verified.bound.items():
        bound = vars(module).get(used, _MISSING)
        beside = classes.get(used)
        if beside is not None and isinstance(bound, type) and bound.__qualname__ == used:
            if bound is not theirs:
                _check_class(bound)
        elif bound is not expected:
            raise _OtherError(f"{module.__name__}.{used} is not that of ncps {RELEASE}")
    for (owner, attribute), computes in verified.torch_uses.items():
        value = getattr(owner, attribute, None)
        # Functions that draw initial values may be replaced: libraries do so, to save time.
        if (computes or isinstance(value, type)) and not _is_of_torch(value, attribute):
            text = f"{owner.__name__}.{attribute}, which {name} uses, has been replaced"
            raise _OtherError(text)


def _is_same(member: Any, expected: Any, module: ModuleType) -> bool:
    if type(member) is not type(expected):
        return False
    if isinstance(expected, property):
        accessors = ("fget", "fset", "fdel")
        return all(_is_same(getattr(member, a), getattr(expected, a), module) for a in accessors)
    if expected is None:
        return True
    return (
        _is_same_code(member.__code__, expected.__code__)
        and member.__defaults__ == expected.__defaults__
        and member.__kwdefaults__ == expected.__kwdefaults__
        and member.__globals__ is vars(module)
    )


# Neither the file nor its line numbers, which comments change.
_CODE = [
    *("co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars", "co_flags"),
    *("co_argcount", "co_posonlyargcount", "co_kwonlyargcount"),
]
if sys.version_info >= (3, 11):
    _CODE.append("co_exceptiontable")


def _is_same_code(code: CodeType, expected: CodeType) -> bool:
    return (
        all(getattr(code, name) == getattr(expected, name) for name in _CODE)
        and len(code.co_consts) == len(expected.co_consts)
        and all(map(_is_same_constant, code.co_consts, expected.co_consts))
    )


def _is_same_constant(value: Any, expected: Any) -> bool:
    if isinstance(value, CodeType) and isinstance(expected, CodeType):
        return _is_same_code(value, expected)
    return repr(value) == repr(expected)  # 1, 1.0 and True are equal


def _is_of_torch(value: Any, name: str) -> bool:
    """Whether something found in torch under a name is what torch has put there.

    Wrappers take over the name and the module of what they wrap, but not its globals.
    """
    if getattr(value, "__name__", None) != name:
        return False
    if isinstance(value, type):
        forward = getattr(value, "forward", None)
        return value.__module__.startswith("torch") and (
            forward is None or _is_of_torch(forward, "forward")
        )
    if isinstance(value, FunctionType):
        return value.__globals__["__name__"].startswith("torch")
    return isinstance(value, BuiltinFunctionType)


@functools.cache
def _classes(module: ModuleType) -> dict[str, _Verified] | str:
    """Return the classes that a module defines in the release, or why it is not of the release."""
    name = module.__name__
    try:
        loader: Any = module.__spec__.loader  # type: ignore[union-attr]
        tree = ast.parse(loader.get_source(name))
    except (AttributeError, ImportError, OSError, SyntaxError, TypeError):
        return f"{name} has no source to compare with that of ncps {RELEASE}"
    if hashlib.sha256(_form(tree).encode()).hexdigest() != _DIGESTS[name]:
        return f"{name} is not that of ncps {RELEASE}: other code in {module.__file__}{_version()}"
    # What comes from other files of ncps is looked at when a module of that class is.
    tree.body = [n for n in tree.body if not (isinstance(n, ast.ImportFrom) and n.level)]
    scope: dict[str, Any] = {"__name__": name}
    exec(compile(tree, str(module.__file__), "exec", dont_inherit=True), scope)
    definitions = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return {definition.name: _verified(definition, scope) for definition in definitions}


def _form(node: Any) -> str:
    """Write a syntax tree without docstrings and positions, the same in all versions of Python."""
    if isinstance(node, list):
        return f"[{','.join(_form(part) for part in node if not _is_docstring(part))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    # What only later versions have, as type_params, is empty here.
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({','.join(f'{name}={_form(value)}' for name, value in fields)})"


def _is_docstring(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _verified(definition: ast.ClassDef, scope: dict[str, Any]) -> _Verified:
    names = {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
    accesses = {
        function.name: [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
        for function in definition.body
        if isinstance(function, ast.FunctionDef)
    }
    attributes = {name: {node.attr for node in nodes} for name, nodes in accesses.items()}
    computing, waiting = set(), {"forward"}
    while waiting:
        name = waiting.pop()
        computing.add(name)
        waiting |= (attributes[name] & accesses.keys()) - computing
    uses: dict[tuple[ModuleType, str], bool] = {}
    for name, nodes in accesses.items():
        for node in nodes:
            owner = _module(node.value, scope)
            if owner is None or not owner.__name__.startswith("torch"):
                continue
            if not isinstance(getattr(owner, node.attr, None), ModuleType):
                uses[owner, node.attr] = name in computing or uses.get((owner, node.attr), False)
    return _Verified(
        made=scope[definition.name],
        # A module can hide the functions of builtins, too.
        bound={n: scope.get(n, _MISSING) for n in names if n in scope or hasattr(builtins, n)},
        attributes=frozenset().union(*attributes.values()),
        torch_uses=uses,
    )


def _module(node: ast.expr, scope: dict[str, Any]) -> ModuleType | None:
    """Return the module that an expression like ``torch.nn.init`` stands for."""
    if isinstance(node, ast.Name):
        found = scope.get(node.id)
    elif isinstance(node, ast.Attribute):
        found = getattr(_module(node.value, scope), node.attr, None)
    else:
        return None
    return found if isinstance(found, ModuleType) else None


def _version() -> str:
    """Return the version of the ncps that is imported, as a part of a text, where it is known."""
    try:
        distribution = importlib.metadata.distribution("ncps")
    except importlib.metadata.PackageNotFoundError:
        return ""
    file = Path(str(distribution.locate_file("ncps/__init__.py")))
    imported = getattr(sys.modules.get("ncps"), "__file__", None)
    return f" ({distribution.version})" if imported and file == Path(imported) else ""
