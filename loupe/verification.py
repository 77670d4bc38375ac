"""What `loupe verify` does: every result computed again from what was stored, part by part, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loupe.errors import PipelineError
from loupe.params import Params
from loupe.paths import ProjectPaths
from loupe.run_files import RunFiles
from loupe.run_params import changed_params

if TYPE_CHECKING:
    from loupe.metrics.recompute import Recomputed


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it."""

    n_numbers: int
    """Compared."""
    problems: tuple[str, ...]
    """What disagrees or cannot be computed again, a message for each part."""
    left_out: tuple[str, ...]
    """What was not looked at, and why."""


def verify_results(paths: ProjectPaths, params: Params) -> Verified:
    """Compute the scores, the recommendation and the result on the test split again; it writes nothing."""
    from loupe.metrics.recompute import disagreement_message, recompute_scores, recompute_selection
    from loupe.metrics.recompute_final import recompute_final

    changed = changed_params(RunFiles(paths.root), paths.root)
    gates = None if "confirm" in changed else params.select
    parts: dict[str, tuple[str, Callable[[], Recomputed]]] = {
        "evaluate": ("checkpoints.csv", lambda: recompute_scores(paths)),
        "select": ("selection.json", lambda: recompute_selection(paths, params.select)),
        "confirm": ("final.json", lambda: recompute_final(paths, gates)),
    }
    n_numbers, problems, left_out = 0, [], []
    for stage, (file, compute) in parts.items():
        if stage != "evaluate" and not (paths.metrics / file).is_file():
            left_out.append(f"metrics/{file}, which is not there")
            continue
        if stage == "select" and stage in changed:
            left_out.append(f"metrics/{file}, because params.yaml has changed since ({changed[stage]})")
            continue
        if stage == "confirm" and gates is None:
            left_out.append(f"the gates in metrics/{file}, because params.yaml has changed since ({changed[stage]})")
        try:
            done = compute()
        except PipelineError as error:
            problems.append(str(error))
        except Exception as error:  # what was changed by hand can fail anywhere
            problems.append(
                f"What {stage} stored cannot be computed with ({type(error).__name__}: {error}): it is not what the "
                f"stage wrote. Make it anew: dvc repro --force {stage}"
            )
        else:
            n_numbers += done.n_numbers
            if done.disagreements:
                problems.append(disagreement_message(done, made_by=stage))
    return Verified(n_numbers, tuple(problems), tuple(left_out))
