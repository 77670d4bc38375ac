"""The scores of a run as its readers see them: one number with what is around it, one row per step, one column each.

It reads no file: run_store.py gives it what metrics/checkpoints.csv and the evaluation's manifest hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from loupe.evaluation_records import EvaluationManifest, ExtractorInfo, Null, RealScore
from loupe.metric_specs import MetricSpec, aim_is_null, aim_of, applicable_specs, extractor_of, known_specs
from loupe.run_files import Cells


@dataclass(frozen=True, slots=True)
class Score:
    """One number of one checkpoint, with its 95 % interval where it has one."""

    value: float
    lo: float | None
    hi: float | None
    diff_base: float | None
    """Paired difference to the base model, with its interval; None for the base itself."""
    diff_base_lo: float | None
    diff_base_hi: float | None
    diff_best: float | None = None
    """Paired difference to the checkpoint that is best in this score; None for that one itself."""
    diff_best_lo: float | None = None
    diff_best_hi: float | None = None


@dataclass(frozen=True, slots=True)
class StepScores:
    """All scores of one checkpoint (step 0: the base model); a score that could not be computed is absent."""

    step: int
    n_images: int | None
    n_used: int | None
    """Valid pictures, i.e. those that the scores are of."""
    n_real: int | None
    invalid_count: int | None
    scores: dict[str, Score]


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """One metric of this run and what is needed to read it; None where its provenance is not on this machine."""

    spec: MetricSpec
    extractor: ExtractorInfo | None
    null: Null | None
    real: RealScore | None
    """The same score of the real validation images."""
    target: float | None
    controls: dict[str, float] = field(default_factory=dict)
    """Noise, blank white, shuffled captions -> the same score of theirs."""

    @property
    def aim(self) -> float | None:
        """What real photos have, where being near to that is best: the value that evaluation compared with."""
        return aim_of(self.spec, self.null, self.real)

    @property
    def shows_null(self) -> bool:
        """Whether the null is the line to read the scores against, not the validation photos' own score."""
        return self.null is not None and (self.null.n_b > 0 or aim_is_null(self.spec, self.null, self.real))


def scores_by_step(rows: Iterable[Cells]) -> tuple[StepScores, ...]:
    """Return the rows of metrics/checkpoints.csv, ascending by step; of two rows of one step the later one."""
    by_step = {int(row["step"]): row for row in rows}
    return tuple(_step_scores(row) for _, row in sorted(by_step.items()))


def metric_columns(scores: Iterable[StepScores], evaluation: EvaluationManifest | None) -> tuple[MetricColumn, ...]:
    """Return the metrics that there are scores of, in the order of loupe/metric_specs.py."""
    present = {key for row in scores for key in row.scores}
    specs = known_specs(present)
    if evaluation:  # it knows the extractors, and with them which column of per_image.csv belongs to which score
        specs |= {key: spec for key, spec in applicable_specs(evaluation.extractors).items() if key in present}
    return tuple(_column(spec, evaluation) for spec in specs.values())


def _step_scores(row: Cells) -> StepScores:
    numbers = {name: value for name, value in row.items() if isinstance(value, float)}
    counts = {name: _whole(numbers.get(name)) for name in ("n_images", "n_used", "n_real", "invalid_count")}
    scores = {key: _score(numbers, key) for key in known_specs(numbers)}
    return StepScores(step=int(numbers["step"]), **counts, scores=scores)


def _score(numbers: dict[str, float], key: str) -> Score:
    ends = [f"{part}{end}" for part in ("", "_diff_base", "_diff_best") for end in ("", "_lo", "_hi")]
    return Score(*(numbers.get(f"{key}{end}") for end in ends))


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _column(spec: MetricSpec, evaluation: EvaluationManifest | None) -> MetricColumn:
    if evaluation is None:
        return MetricColumn(spec, extractor=None, null=None, real=None, target=None)
    extractor = extractor_of(spec, evaluation.extractors)
    return MetricColumn(
        spec,
        extractor=extractor,
        null=evaluation.nulls.get(spec.key),
        real=evaluation.real_scores.get(spec.key),
        target=evaluation.targets.get(spec.key),
        controls={name: scores[spec.key] for name, scores in evaluation.controls.items() if spec.key in scores},
    )
