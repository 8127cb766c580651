"""Which module may import which: the arrows of the design, read from the import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mobileface", "search", "export")

# These answer fast and without the tensor libraries, so `search.budget` and `--help` start at once.
LIGHT = (
    "mobileface.arch",
    "mobileface.zoo",
    "mobileface.training.plan",
    "search.cost",
    "search.budget",
    "search.space",
    "search.latency",
)
NOT_LIGHT = ("torch", "numpy")

# Imported inside the functions that need them: slow to load, or not installed everywhere.
HEAVY = (
    "onnx",
    "onnxruntime",
    "coremltools",
    "litert_torch",
    "ai_edge_litert",
    "ai_edge_quantizer",
    "optuna",
    "sqlalchemy",
    "psycopg",
    "torch_pruning",
    "matplotlib",
    "fvcore",
    "tensorboard",
)
HEAVY_INSIDE = ("torch.utils.tensorboard",)  # a heavy library behind torch's name

ROOTS_OF_COMPOSITION = ("mobileface.factory", "mobileface.cli", "mobileface.__main__")
ABOVE = (
    "mobileface.training",
    "mobileface.evaluation",
    "mobileface.cleaning",
    "mobileface.video",
    "mobileface.report",
    "mobileface.understanding",
)
FLOOR = (
    "mobileface.errors",
    "mobileface.files",
    "mobileface.distributed",
    "mobileface.statistics",
    "mobileface.unionfind",
    "mobileface.correlation",
)

# who -> what it must not import, at any depth of its source
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "mobileface.models": ("mobileface.losses", "mobileface.data", *ABOVE),
    "mobileface.losses": ("mobileface.models", "mobileface.data", *ABOVE),
    "mobileface.data": ("mobileface.models", "mobileface.losses", *ABOVE),
    "mobileface.embedders": ("mobileface.losses", *ABOVE),
    "mobileface": ("search", "export"),  # but for the roots of composition
    "search": ("export", *ROOTS_OF_COMPOSITION),
    "export": ("search", *ROOTS_OF_COMPOSITION),
    **{floor: ("mobileface.models", "mobileface.losses", "mobileface.data", *ABOVE) for floor in FLOOR},
}
# the one package of which the design says what it may import; errors and files are the floor under everything
MODELS_MAY = ("mobileface.arch", "mobileface.models", "mobileface.statistics", "mobileface.errors", "mobileface.files")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def any_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(within(module, package) for package in packages)


def module_files(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file, for every module of the packages."""
    found = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = module_files()


def statements(node: ast.AST, top_only: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements; with `top_only`, those that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif top_only and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from (s for other in child.orelse for s in statements(ast.Module([other], []), top_only))
        elif not (top_only and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from statements(child, top_only)


def imported(source: str, module: str, is_package: bool, top_only: bool) -> set[str]:
    """Every name that `module` may load: `from a.b import c` gives a.b and a.b.c, for c may be a module."""
    names: set[str] = set()
    for statement in statements(ast.parse(source), top_only):
        if isinstance(statement, ast.Import):
            names.update(alias.name for alias in statement.names)
            continue
        base = statement.module or ""
        if statement.level:
            up = statement.level - 1 if is_package else statement.level
            home = module.split(".")[: len(module.split(".")) - up]
            base = ".".join([*home, base] if base else home)
        names.add(base)
        names.update(f"{base}.{alias.name}" for alias in statement.names)
    return names


def imports_of(module: str, top_only: bool = False) -> set[str]:
    file = MODULES[module]
    return imported(file.read_text(encoding="utf-8"), module, file.name == "__init__.py", top_only)


def loaded_with(module: str) -> set[str]:
    """Modules of ours that importing `module` runs: its packages, and what each imports at its top."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        parts = name.split(".")
        waiting += [".".join(parts[:i]) for i in range(1, len(parts))]
        waiting += imports_of(name, top_only=True)
    return seen


def test_the_packages_were_found() -> None:
    assert {"mobileface.errors", "mobileface.losses.classifier", "search", "export"} <= set(MODULES)


@pytest.mark.parametrize("module", [m for m in LIGHT if m in MODULES])
def test_light_modules_load_no_tensor_library(module: str) -> None:
    guilty = {
        f"{ours} imports {name}"
        for ours in loaded_with(module)
        for name in imports_of(ours, top_only=True)
        if any_within(name, NOT_LIGHT)
    }
    assert not guilty


@pytest.mark.parametrize("module", MODULES)
def test_no_arrow_points_the_wrong_way(module: str) -> None:
    forbidden = {bad for who, bads in FORBIDDEN.items() if within(module, who) for bad in bads}
    if module in ROOTS_OF_COMPOSITION:
        forbidden -= {"search", "export"}
    forbidden |= {"benchmarks", "tests"}
    guilty = {name for name in imports_of(module) if any_within(name, tuple(forbidden))}
    assert not guilty


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, "mobileface.models")])
def test_models_import_arch_only(module: str) -> None:
    ours = {name for name in imports_of(module) if within(name, "mobileface") and name != "mobileface"}
    assert not {name for name in ours if not any_within(name, MODELS_MAY)}


@pytest.mark.parametrize("module", MODULES)
def test_heavy_libraries_are_imported_inside_functions(module: str) -> None:
    names = imports_of(module, top_only=True)
    assert not {name for name in names if any_within(name, (*HEAVY, *HEAVY_INSIDE))}


def test_the_reader_of_imports_sees_what_runs() -> None:
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
import a.b as c
from . import sibling
from ..up import thing
if TYPE_CHECKING:
    import only_types
else:
    import at_run
try:
    import tried
except ImportError:
    pass
class K:
    import inside_class
def f():
    import inside_function
"""
    top = imported(source, "mobileface.data.x", is_package=False, top_only=True)
    assert {"a.b", "mobileface.data.sibling", "mobileface.up.thing", "at_run", "tried", "inside_class"} <= top
    assert not top & {"only_types", "inside_function"}
    whole = imported(source, "mobileface.data.x", is_package=False, top_only=False)
    assert {"inside_function", "only_types"} <= whole
    package = imported("from .y import z", "mobileface.data", is_package=True, top_only=True)
    assert package == {"mobileface.data.y", "mobileface.data.y.z"}
