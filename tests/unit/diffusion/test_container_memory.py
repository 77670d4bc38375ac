"""Memory limits of control groups, on written-down copies of the kernel's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from loupe.diffusion import memory
from loupe.diffusion.container_memory import container_free_bytes
from loupe.diffusion.device import DevicePolicy

GB = 1_000_000_000
NO_LIMIT_V1 = 9223372036854771712
NAMES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def group(folder: Path, version: int, *, limit: int | str, used: int, droppable: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    limit_file, usage_file, line = NAMES[version]
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / usage_file).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 12\n{line} {droppable}\nactive_file 7\n")


def free(tmp_path: Path, lines: str) -> int | None:
    (tmp_path / "own").write_text(lines)
    return container_free_bytes(mount=tmp_path / "cgroup", own=tmp_path / "own")


def test_a_container_of_version_2_has_its_limit_less_what_is_used_and_cannot_be_dropped(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", 2, limit=8 * GB, used=3 * GB, droppable=GB)
    assert free(tmp_path, "0::/\n") == 6 * GB


def test_the_narrowest_group_around_the_process_counts(tmp_path: Path) -> None:
    top = tmp_path / "cgroup"
    group(top / "user.slice" / "run", 2, limit="max", used=GB, droppable=0)
    group(top / "user.slice", 2, limit=4 * GB, used=3 * GB, droppable=0)
    group(top / "other.slice", 2, limit=GB, used=GB, droppable=0)
    assert free(tmp_path, "0::/user.slice/run\n") == GB


def test_version_1_with_a_path_that_is_not_seen_inside(tmp_path: Path) -> None:
    group(tmp_path / "cgroup" / "memory", 1, limit=2 * GB, used=GB, droppable=GB // 2)
    assert free(tmp_path, "5:cpu:/x\n4:memory:/docker/abc\n0::/\n") == 3 * GB // 2


@pytest.mark.parametrize(("version", "limit"), [(2, "max"), (1, NO_LIMIT_V1)])
def test_no_limit_is_none(tmp_path: Path, version: int, limit: int | str) -> None:
    group(tmp_path / "cgroup" / ("memory" if version == 1 else ""), version, limit=limit, used=GB, droppable=0)
    assert free(tmp_path, "4:memory:/\n0::/\n") is None


def test_a_limit_that_was_overdrawn_leaves_nothing(tmp_path: Path) -> None:
    group(tmp_path / "cgroup", 2, limit=GB, used=2 * GB, droppable=0)
    assert free(tmp_path, "0::/\n") == 0


def test_a_system_without_control_groups_is_none(tmp_path: Path) -> None:
    assert container_free_bytes(mount=tmp_path / "cgroup", own=tmp_path / "absent") is None
    assert free(tmp_path, "0::/\n") is None


def test_the_memory_that_is_free_is_no_more_than_the_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = DevicePolicy("cpu", "float32", "test")
    monkeypatch.setattr(memory, "container_free_bytes", lambda: None)
    of_machine = memory.available_bytes(cpu)
    monkeypatch.setattr(memory, "container_free_bytes", lambda: 1000)
    assert memory.available_bytes(cpu) == 1000
    monkeypatch.setattr(memory, "container_free_bytes", lambda: 10**18)
    assert abs(memory.available_bytes(cpu) - of_machine) < 10**9
