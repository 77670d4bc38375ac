"""Imports go downward only, torch stays below the readers, and --help needs no heavy import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.contracts.source_tree import ROOT, imported_modules, python_files, relative

HEAVY = (
    "torch",
    "torchvision",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "open_clip",
    "torchmetrics",
    "streamlit",
)
L1 = tuple(
    f"loupe/{n}.py"
    for n in (
        "dataset_view",
        "experiments",
        "final_html",
        "metric_specs",
        "metric_table",
        "nearest_html",
        "report_page",
        "report_svg",
        "run_changes",
        "run_files",
        "run_params",
        "run_samples",
        "run_scores",
        "run_stale",
        "run_state",
        "run_store",
        "run_training",
        "sample_order",
        "score_html",
        "score_report",
        "trial_queue",
        "vote_html",
        "vote_plan",
        "vote_results",
        "vote_statistics",
        "votes",
        "wording",
    )
)
TOP = tuple(f"loupe/{n}.py" for n in ("cli", "preflight", "preflight_trial", "verification"))
STAGES = sorted(f.stem for f in (ROOT / "stages").glob("*.py") if f.stem != "__init__")


def layer(path: str) -> int:
    """L0 contracts, L1 readers, L2 the work, L3 what people start."""
    if path in L1:
        return 1
    if path.startswith(("stages/", "dashboard/", "service/")) or path in TOP:
        return 3
    return 2 if path.count("/") > 1 else 0


def test_every_import_goes_downward_or_stays_in_its_folder() -> None:
    upward = []
    for file in python_files():
        here = relative(file)
        for name in imported_modules(file):
            target = name.replace(".", "/") + ".py"
            if not (ROOT / target).is_file():
                continue
            same_folder = target.rpartition("/")[0] == here.rpartition("/")[0]
            if layer(target) > layer(here) or (
                layer(target) == layer(here) == 3 and not same_folder and target.split("/")[0] != here.split("/")[0]
            ):
                upward.append(f"{here} imports {target}")
    assert not upward


def test_contracts_and_readers_name_no_heavy_library_and_the_work_no_streamlit() -> None:
    wrong = []
    for file in python_files():
        here = relative(file)
        roots = {name.split(".")[0] for name in imported_modules(file)}
        banned = HEAVY if layer(here) <= 1 else ("streamlit",) if layer(here) == 2 else ()
        wrong += [f"{here} imports {root}" for root in sorted(roots & set(banned))]
    assert not wrong


@pytest.mark.parametrize("stage", STAGES)
def test_help_of_a_stage_loads_no_heavy_library(stage: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['stages.{stage}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('stages.{stage}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code in (0, None), end.code\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--params" in done.stdout


def test_reading_results_loads_neither_torch_nor_streamlit() -> None:
    code = f"import sys, loupe.run_store, loupe.metric_specs\nassert not set({HEAVY!r}) & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
