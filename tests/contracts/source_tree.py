"""The repository's own source as the contract tests see it: files, modules and imports, by syntax tree only."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("loupe", "stages", "dashboard", "service")


@cache
def python_files() -> tuple[Path, ...]:
    """All Python files of the product (no tests, no benchmarks)."""
    return tuple(sorted(f for package in PACKAGES for f in (ROOT / package).rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imported_modules(path: Path) -> frozenset[str]:
    """Dotted names a file imports anywhere, also inside functions; `from a import b` gives both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@cache
def imported_files(path: Path) -> frozenset[Path]:
    """The repository's own files that a file imports directly (packages give their __init__.py)."""
    found = set()
    for name in imported_modules(path):
        if name.split(".")[0] not in PACKAGES:
            continue
        base = ROOT.joinpath(*name.split("."))
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                found.add(candidate)
    return frozenset(found)


def reachable_files(path: Path) -> set[Path]:
    """All of the repository's own files that a file imports, directly or through others."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        for file in imported_files(waiting.pop()):
            if file not in seen:
                seen.add(file)
                waiting.append(file)
    return seen
