"""Rules of the source itself: small files and functions, a docstring each, no global randomness, no pickles."""

from __future__ import annotations

import ast
import re
import subprocess

from tests.contracts.source_tree import ROOT, python_files, relative, tree

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_STAGE_LINES = 120
GLOBAL_RNG = re.compile(
    r"\b(?:np|numpy)\.random\.(?!default_rng|Generator|SeedSequence|PCG64|BitGenerator)\w+\("
    r"|\btorch\.(?:manual_seed|seed)\("
    r"|(?<![\w.])random\.(?:seed|random|randint|choice|shuffle|sample|uniform)\("
    r"|\b(?:set_seed|seed_everything)\("
)
UNPICKLING = re.compile(r"\bpickle\.loads?\(|\btorch\.load\((?![^)]*weights_only=True)|\bjoblib\.load\(")


def test_files_are_short() -> None:
    lengths = {relative(f): len(f.read_text(encoding="utf-8").splitlines()) for f in python_files()}
    assert not {f: n for f, n in lengths.items() if n > MAX_FILE_LINES}
    assert not {f: n for f, n in lengths.items() if f.startswith("stages/") and n > MAX_STAGE_LINES}


def test_functions_are_short() -> None:
    long = {}
    for file in python_files():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{relative(file)}:{node.name}"] = lines
    assert not long


def test_every_module_says_what_it_does() -> None:
    silent = [relative(f) for f in python_files() if f.read_text().strip() and not ast.get_docstring(tree(f))]
    assert not silent


def test_randomness_is_passed_in_never_global() -> None:
    """Initial weights that a library draws from the global generator are fine inside fork_rng, which restores it."""
    found = []
    for file in python_files():
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            forked = any("fork_rng" in earlier for earlier in lines[max(0, number - 2) : number])
            if GLOBAL_RNG.search(line) and not forked:
                found.append(f"{relative(file)}:{number + 1}: {line.strip()}")
    assert not found


def test_nothing_is_unpickled() -> None:
    found = [relative(f) for f in python_files() if UNPICKLING.search(f.read_text(encoding="utf-8"))]
    assert not found


def test_no_machine_path_or_registry_address_in_tracked_files() -> None:
    pattern = r"/[w]ork/|/[r]oot/|/home/[a-z]|p[y]pi\.o[r]g|python[h]osted"
    done = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout


def test_no_two_stages_draw_from_the_same_random_numbers() -> None:
    """default_rng([params.seed, n]); a constant STREAM takes itself and the next."""
    streams = []
    for path in sorted((ROOT / "stages").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        streams += [int(n) for n in re.findall(r"default_rng\(\[params\.seed, (\d+)\]\)", source)]
        streams += [n for first in re.findall(r"^STREAM = (\d+)$", source, re.M) for n in (int(first), int(first) + 1)]
    assert len(streams) >= 7
    assert len(streams) == len(set(streams))
