"""An installed copy holds all of the library and has the command `loupe`."""

from __future__ import annotations

import tomllib
from importlib import import_module

from setuptools import find_packages

from tests.contracts.source_tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_of_the_library_is_installed() -> None:
    include = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    installed = set(find_packages(str(ROOT), include=include))
    with_code = {file.parent.relative_to(ROOT).as_posix().replace("/", ".") for file in ROOT.glob("loupe/**/*.py")}
    assert installed == with_code


def test_the_library_needs_no_file_that_is_not_python() -> None:
    """Only Python files are installed; what else a run needs lies in the project folder."""
    others = [f for f in (ROOT / "loupe").rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")]
    assert not others


def test_the_command_names_a_function() -> None:
    module, _, function = PROJECT["project"]["scripts"]["loupe"].partition(":")
    assert callable(getattr(import_module(module), function))
