"""A lock file that one process at a time holds; it is free again when its process ends, however that happens.

It knows nothing of what the lock is for.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loupe.errors import PipelineError

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


@contextmanager
def hold(path: Path, *, busy: str, waits: bool = True) -> Iterator[None]:
    """Hold `path` while the block runs; where another process has it, wait for that one to finish, and say so once.

    `busy` says what the other one is doing; its process id is in the file, and in the message. Raises PipelineError
    instead of waiting when `waits` is False, and where a folder is in the file's place. Some network disks have no
    locks: then it says so and goes on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise PipelineError(f"{path} is a folder; a lock file belongs there. Remove the folder and start again.")
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{busy}{_holder(path)}"
            if not waits:
                raise PipelineError(f"{message}. Wait until it has finished, or end it; then start again.") from None
            print(f"{message}; waiting for it to finish.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            print(f"note: {path.parent} is on a disk without locks ({error.strerror}): start nothing beside this.")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _holder(path: Path) -> str:
    pid = path.read_text().strip()
    return f" (process {pid})" if pid.isdigit() else ""
