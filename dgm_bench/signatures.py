"""Signatures of models and objectives with their annotations, read from source, not imported.

The catalogue and ``--set`` are checked against the annotations of constructors, and start without
torch. So the files of classes are parsed, and of their names only those that annotations need are
looked up, in whatever file they come from.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dgm_bench.errors import DeclarationError
from dgm_bench.paths import PACKAGE

#: Folders of the package whose files import torch.
_PARSED = ("models", "train", "metrics")
#: Where annotations and tables of constructors have other names from.
_IMPORTED = ("collections", "dgm_bench", "functools", "typing")


@dataclass(frozen=True, eq=False)
class Definition:
    """A class or function as its source says; calling it only keeps the arguments."""

    name: str
    module: Module
    node: ast.ClassDef | ast.FunctionDef | None = None

    def __call__(self, *args: Any, **keywords: Any) -> partial[Any]:  # noqa: ANN401  anything
        """Return the call that this would be."""
        return partial(self, *args, **keywords)


@dataclass(frozen=True)
class Parameter:
    """What a parameter may be, and its default or ``...``."""

    annotation: Any
    default: Any = ...


class Module(dict[str, Any]):
    """The names of a parsed file, each evaluated when it is asked for.

    Args:
        name: Of the module.

    Raises:
        DeclarationError: There is no such file.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        tree = ast.parse(_path(name).read_text(encoding="utf-8"))
        self.nodes = dict(entry for node in tree.body for entry in _names(node))

    def __missing__(self, name: str) -> Any:  # noqa: ANN401  a name may mean anything
        node = self.nodes.get(name)
        if isinstance(node, ast.ImportFrom):
            self[name] = self._imported(node, name)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            self[name] = Definition(name, self, node)
        elif isinstance(node, ast.expr):
            self[name] = self.evaluate(node)
        else:
            raise KeyError(name)
        return self[name]

    def _imported(self, node: ast.ImportFrom, name: str) -> Any:  # noqa: ANN401
        source = node.module or ""
        original = next(a.name for a in node.names if name in (a.asname, a.name))
        if source.startswith(tuple(f"dgm_bench.{folder}" for folder in _PARSED)):
            return module(source)[original]
        if source.split(".")[0] in _IMPORTED:
            return getattr(import_module(source), original)
        return Definition(name, self)

    def evaluate(self, node: ast.expr) -> Any:  # noqa: ANN401  an expression may mean anything
        """Return the value of an expression of the file."""
        code = compile(ast.Expression(node), "<annotation>", "eval")
        return eval(code, {}, self)


def _names(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """Yield what a statement at the top of a file defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name, node
    elif isinstance(node, ast.ImportFrom):
        yield from ((alias.asname or alias.name, node) for alias in node.names)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        yield node.targets[0].id, node.value
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value


def _path(name: str) -> Path:
    """Return the file of a module of ours; extensions may have put folders in the search path."""
    _, folder, *rest = name.split(".")
    loaded = sys.modules.get(f"dgm_bench.{folder}")
    for home in getattr(loaded, "__path__", [PACKAGE / folder]):
        base = Path(home).joinpath(*rest)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    raise DeclarationError(name, "is no file of this package", "reinstall dgm-bench")


@cache
def module(name: str) -> Module:
    """Return a file of ours, parsed once."""
    return Module(name)


@cache
def parameters(definition: Definition) -> Mapping[str, Parameter]:
    """Return what a function takes, or what makes an instance of a class, ``self`` aside.

    A class without a constructor takes its own annotated names (a dataclass, a dict of types), or
    what its first base takes.
    """
    node, names = definition.node, definition.module
    if isinstance(node, ast.ClassDef):
        constructor = next((n for n in node.body if getattr(n, "name", "") == "__init__"), None)
        if not isinstance(constructor, ast.FunctionDef):
            return _fields(node, names) or parameters(names.evaluate(node.bases[0]))
        return dict(list(_arguments(constructor, names).items())[1:])
    return _arguments(node, names) if node else {}


def _fields(node: ast.ClassDef, names: Module) -> dict[str, Parameter]:
    optional = [k for k in node.keywords if k.arg == "total"]
    return {
        field.target.id: Parameter(names.evaluate(field.annotation), None if optional else ...)
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def _arguments(node: ast.FunctionDef, names: Module) -> dict[str, Parameter]:
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    bare: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    pairs = zip([*positional, *given.kwonlyargs], [*bare, *given.defaults, *given.kw_defaults],
                strict=True)  # fmt: skip
    return {
        argument.arg: Parameter(
            names.evaluate(argument.annotation) if argument.annotation else Any,
            names.evaluate(default) if default else ...,
        )
        for argument, default in pairs
    }
