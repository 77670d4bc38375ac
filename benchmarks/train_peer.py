"""The other side of the comparison: runs the peer's script unchanged and times its training loop.

Started by bench_train.py. The script's progress bar is what is timed, from its making to its last update: like our
side, without imports, loading of weights and preparation of the file list.
"""

from __future__ import annotations

import json
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    report, script, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    marks = _time_the_progress_bar()
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    peak_gb = _peak_gb()
    content = {"train_s": marks["last"] - marks["first"], "steps": marks["steps"], "peak_memory_gb": peak_gb}
    report.write_text(json.dumps(content))


def _time_the_progress_bar() -> dict[str, Any]:
    import torch
    import tqdm.auto

    marks: dict[str, Any] = {"steps": 0}

    class TimedBar(tqdm.auto.tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.is_timed = options.get("desc") == "Steps"
            if self.is_timed:
                marks["first"] = time.perf_counter()

        def update(self, n: float | None = 1) -> Any:
            result = super().update(n)
            if getattr(self, "is_timed", False):
                marks["steps"] += n
                if marks["steps"] == self.total and torch.cuda.is_available():
                    torch.cuda.synchronize()
                marks["last"] = time.perf_counter()
            return result

    tqdm.auto.tqdm = TimedBar
    return marks


def _peak_gb() -> float:
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)


if __name__ == "__main__":
    main()
