"""dvc.yaml says the truth: code dependencies cover the real imports, parameters exist, outputs are kept as decided."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loupe.params import Params, load_params
from tests.contracts.source_tree import ROOT, reachable_files, relative

DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Contracts that every stage leans on. A change there that moves bytes moves a record or a parameter too; the work
# store's keys hold the source of what decides bytes.
EVERYWHERE = {
    "loupe/__init__.py",
    "loupe/atomic_io.py",
    "loupe/errors.py",
    "loupe/evaluate_params.py",
    "loupe/file_lock.py",
    "loupe/launch.py",
    "loupe/looks.py",
    "loupe/param_types.py",
    "loupe/params.py",
    "loupe/paths.py",
    "loupe/progress.py",
    "loupe/stage.py",
    "loupe/train_params.py",
    "loupe/workstore.py",
    "loupe/yaml_file.py",
    "stages/__init__.py",
}


# Sections that a stage reads and that decide nothing of its outputs, so that a change there must not run it again:
# train draws previews of generate's prompts into the work store.
DECIDE_NOTHING = {"train": {"generate"}}


def _paths(entries: list) -> list[str]:
    params = load_params(ROOT / "params.yaml")
    names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    return [name.replace("${data.root}", params.data.root) for name in names]


def _inside(file: str, folders: list[str]) -> bool:
    return any(file == folder or file.startswith(f"{folder}/") for folder in folders)


@pytest.mark.parametrize("stage", sorted(DVC))
def test_code_dependencies_cover_what_the_stage_imports(stage: str) -> None:
    deps = _paths(DVC[stage]["deps"])
    script = ROOT / "stages" / f"{stage}.py"
    needed = {relative(f) for f in reachable_files(script)} | {relative(script)}
    uncovered = sorted(f for f in needed - EVERYWHERE if not _inside(f, deps))
    assert not uncovered, f"{stage}: add to deps in dvc.yaml, or do not import: {uncovered}"


@pytest.mark.parametrize("stage", sorted(DVC))
def test_code_dependencies_name_nothing_the_stage_does_not_import(stage: str) -> None:
    script = ROOT / "stages" / f"{stage}.py"
    used = {relative(f) for f in reachable_files(script)} | {relative(script)}
    code = [d for d in _paths(DVC[stage]["deps"]) if d.startswith(("loupe", "stages"))]
    idle = [d for d in code if not any(_inside(f, [d]) for f in used)]
    assert not idle, f"{stage}: a change of {idle} would run it for nothing"


@pytest.mark.parametrize("stage", sorted(DVC))
def test_parameters_are_sections_or_fields_that_exist(stage: str) -> None:
    for name in DVC[stage]["params"]:
        section, _, field = name.partition(".")
        assert section in Params.model_fields
        assert not field or field in Params.model_fields[section].annotation.model_fields


@pytest.mark.parametrize("stage", sorted(DVC))
def test_a_stage_declares_every_parameter_it_reads(stage: str) -> None:
    source = (ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8")
    read = re.findall(rf"\bparams\.({'|'.join(Params.model_fields)})\b(?:\.(\w+))?", source)
    declared, idle = set(DVC[stage]["params"]), DECIDE_NOTHING.get(stage, set())
    unknown = [
        f"{section}.{field}"
        for section, field in read
        if section not in declared | idle and f"{section}.{field}" not in declared
    ]
    assert not unknown, f"{stage} reads {unknown}, which dvc.yaml does not know"


@pytest.mark.parametrize("stage", sorted(DVC))
def test_git_tracked_results_are_metrics_or_plots_never_outs(stage: str) -> None:
    """`cache: false` under outs would switch DVC's run cache off for the whole stage."""
    assert all(isinstance(out, str) for out in DVC[stage].get("outs", []))
    kept = DVC[stage].get("metrics", []) + DVC[stage].get("plots", [])
    assert all(next(iter(entry.values()))["cache"] is False for entry in kept)


def test_every_stage_script_is_a_stage_and_the_other_way_round() -> None:
    assert {f.stem for f in (ROOT / "stages").glob("*.py")} - {"__init__"} == set(DVC)


@pytest.mark.parametrize("profile", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_profile_is_a_complete_parameter_file(profile: Path) -> None:
    load_params(profile)
