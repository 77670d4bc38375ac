"""The memory that a Linux container or systemd unit may still take: control groups, which psutil does not look at.

Without it a process in a container of 8 GB on a machine of 64 GB believes that it has 64, and is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_UNLIMITED = 1 << 60
"""Version 1 of the kernel's interface says `no limit` by a number of this size."""


def container_free_bytes(*, mount: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the least of what the process's control group and those around it have left; None where none is limited.

    Cached files that the kernel would drop count as free. Source: the kernel's documentation of control groups,
    admin-guide/cgroup-v2 and cgroup-v1/memory.
    """
    left = [free for folder, names in _groups(mount, own) if (free := _free_bytes(folder, *names)) is not None]
    return min(left, default=None)


def _groups(mount: Path, own: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield the folders of the process's groups, from its own outward; inside a container the path may not exist."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top, names = mount, _V2
        elif "memory" in controllers.split(","):
            top, names = mount / "memory", _V1
        else:
            continue
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(top):
                yield group, names


def _free_bytes(folder: Path, limit_file: str, usage_file: str, droppable_line: str) -> int | None:
    try:
        limit = (folder / limit_file).read_text().strip()
        if limit == "max" or int(limit) >= _UNLIMITED:
            return None
        usage = int((folder / usage_file).read_text())
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - usage + int(counts.get(droppable_line, 0)))
    except (OSError, ValueError):
        return None
