"""The questions of a blind vote: every pair evenly, checks among them, the same for all, sides by fair draws."""

from __future__ import annotations

from collections import Counter

import pytest

from loupe.records import SamplesManifest
from loupe.run_store import RunStore
from loupe.vote_plan import CHECK_EVERY, left_is_other, vote_plan
from tests.run_fixture import Shape, complete_run

STEPS = (0, 75, 150)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> SamplesManifest:
    root = complete_run(tmp_path_factory.mktemp("run"), Shape(steps=(75, 150), seeds=3, size_px=16, captions=0))
    return RunStore(root).samples_manifest()


def test_every_pair_of_every_prompt_and_seed_is_asked_once_in_balanced_rounds(manifest: SamplesManifest) -> None:
    questions = [q for q in vote_plan(manifest, STEPS).questions if q.kind == "pair"]
    asked = Counter((q.one.prompt_id, q.one.seed_index, q.one.step, q.other.step) for q in questions)
    assert len(asked) == 4 * 3 * 3
    assert set(asked.values()) == {1}
    for start in range(0, len(questions), 3):
        assert {(q.one.step, q.other.step) for q in questions[start : start + 3]} == {(0, 75), (0, 150), (75, 150)}
    assert all((q.one.prompt_id, q.one.seed_index) == (q.other.prompt_id, q.other.seed_index) for q in questions)


def test_checks_come_in_turn_and_repeat_what_was_asked_a_while_ago(manifest: SamplesManifest) -> None:
    questions = vote_plan(manifest, STEPS).questions
    assert [q.position for q in questions] == list(range(len(questions)))
    checks = [q for q in questions if q.kind != "pair"]
    assert [q.kind for q in checks] == ["same", "repeat", "same", "repeat"]
    assert checks[0].position == CHECK_EVERY
    assert all(q.one == q.other for q in checks if q.kind == "same")
    for repeat in (q for q in checks if q.kind == "repeat"):
        (first,) = [q for q in questions if q.kind == "pair" and (q.one, q.other) == (repeat.one, repeat.other)]
        assert repeat.position - first.position >= CHECK_EVERY


def test_the_plan_is_the_same_for_all_and_another_for_other_pictures(manifest: SamplesManifest) -> None:
    assert vote_plan(manifest, STEPS) == vote_plan(manifest, (150, 0, 75))
    assert vote_plan(manifest, (0, 75)).key != vote_plan(manifest, STEPS).key
    assert vote_plan(manifest, (75,)).questions == ()


def test_sides_are_drawn_for_each_reviewer_and_stay(manifest: SamplesManifest) -> None:
    plan = vote_plan(manifest, STEPS)
    sides = {name: [left_is_other(plan, q, name) for q in plan.questions] for name in ("Ann", "Bob")}
    assert sides["Ann"] != sides["Bob"]
    assert sides["Ann"] == [left_is_other(plan, q, "Ann") for q in plan.questions]
    drawn = [left_is_other(plan, q, f"r{i}") for q in plan.questions for i in range(50)]
    assert 0.45 < sum(drawn) / len(drawn) < 0.55


def test_a_picture_that_was_not_kept_is_not_asked_about(manifest: SamplesManifest) -> None:
    without = [s.model_copy(update={"sha256": None, "file": None}) if s.step == 75 else s for s in manifest.samples]
    plan = vote_plan(manifest.model_copy(update={"samples": tuple(without)}), STEPS)
    assert {q.other.step for q in plan.questions if q.kind == "pair"} == {150}
