"""A folder of samples, measured and scored against real photos: the work of `evaluate` and of `confirm`.

It writes nothing but the work store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loupe.evaluation_records import Null, RealScore
from loupe.metric_specs import VALIDATION_LOSS, MetricSpec, aim_of, applicable_specs, known_specs
from loupe.metrics.background import background_finding
from loupe.metrics.estimates import Resampling, resampling_of
from loupe.metrics.extractor_keys import pixel_measure_kind
from loupe.metrics.extractors import Extractors
from loupe.metrics.feature_store import stored_keys
from loupe.metrics.image_set import ImageSet, RealPhotos
from loupe.metrics.losses import ValidationLosses
from loupe.metrics.measure import Measured, complete_features, read_features
from loupe.metrics.memorisation import near_duplicates
from loupe.metrics.samples import StepSets, checked_samples, sample_rows, unreadable_files
from loupe.metrics.scoring import StepScores, add_differences_to_best, best_steps, score_steps
from loupe.metrics.silhouette import centring_findings
from loupe.paths import step_name
from loupe.records import SamplesManifest
from loupe.workstore import WorkStore

RESAMPLES = "resamples.safetensors"
"""In data/evaluation: what each prompt weighs in each resample (`weights`), and the draws of every score."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The samples of a manifest with their scores."""

    manifest: SamplesManifest
    """With an `invalid_reason` for pictures that cannot be read."""
    measured: Measured
    sets: Mapping[int, ImageSet]
    """Step -> its valid images; reading one may cost something, so take each once."""
    real: RealPhotos
    """What they were compared with."""
    specs: Mapping[str, MetricSpec]
    scores: tuple[StepScores, ...]
    """Ascending by step, the base model first."""
    resampling: Resampling
    best_steps: Mapping[str, int]
    """Metric key -> the checkpoint that is best in it; empty where that was not asked for."""
    losses: ValidationLosses = field(default_factory=ValidationLosses)
    """What `train` measured of the same checkpoints."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Ids of the prompts, the unit of every interval."""
        return self.resampling.prompts

    @property
    def n_images(self) -> int:
        """Pictures per step, valid or not."""
        return len(self.prompts) * self.manifest.seeds_per_prompt

    @property
    def n_real(self) -> int:
        """Photos that distances are taken from."""
        return len(self.real.held_out)

    @property
    def absent(self) -> dict[str, str]:
        """step-N/<metric key> -> why it has no value."""
        return {
            **{f"{step_name(s.step)}/{key}": reason for s in self.scores for key, reason in s.absent.items()},
            **{f"{step_name(step)}/{VALIDATION_LOSS.key}": reason for step, reason in self.losses.absent.items()},
        }

    @property
    def unreadable(self) -> dict[str, str]:
        """Picture -> why it cannot be looked at."""
        return unreadable_files(self.manifest)

    @property
    def said(self) -> Iterator[str]:
        """What a stage prints: the scores of every step, why one is absent, and the findings."""
        for scores in self.scores:
            values = ", ".join(f"{key} {estimate.value:.4g}" for key, estimate in scores.values.items())
            yield f"{step_name(scores.step)}: {values} (n = {scores.n_used})"
        yield from (f"no {place}: {reason}" for place, reason in self.absent.items())
        yield from self.findings

    @property
    def findings(self) -> tuple[str, ...]:
        """What a reader of the scores should know."""
        cut = [f"the text tower reads only the beginning of: {text}" for text in self.measured.long_texts]
        uneven = [
            f"{step_name(s.step)} has {s.n_used} valid pictures of {self.n_images}: scores that depend on their number "
            "are left out where another checkpoint has more; differences are taken over the pictures that both have"
            for s in self.scores
            if 0 < s.n_used < self.n_images
        ]
        few = [] if len(self.resampling.weights_RP) else ["one prompt alone gives no interval; add prompts"]
        unread = [f"{file} is {why}; it counts as invalid" for file, why in self.unreadable.items()]
        return (*cut, *unread, *uneven, *few, *self._bands, *self.losses.findings, *self._ranking)

    @property
    def _bands(self) -> Iterator[str]:
        """How the photos themselves have moved what a picture must keep to."""
        if not len(self.real.train):
            return
        if finding := background_finding(self.real):
            yield finding
        yield from centring_findings(self.real)
        if len(self.real.held_out) and (n_near := near_duplicates(self.real)):
            yield (
                f"{n_near} of {self.n_real} held-out photos are nearly training photos; the threshold of memorised "
                "pictures goes by the others"
            )

    @property
    def _ranking(self) -> Iterator[str]:
        n_used = max(scores.n_used for scores in self.scores)
        least = {key: spec.least_to_rank for key, spec in self.specs.items() if n_used < (spec.least_to_rank or 0)}
        if least:
            better = " and ".join(key for key, spec in self.specs.items() if spec.criterion in ("kid", "cmmd"))
            yield (
                f"with {n_used} pictures, fewer than {max(least.values())}, {', '.join(least)} can rank the worse "
                f"checkpoint first, because less diverse pictures lower its bias; go by {better}"
            )


def aims_of(nulls: Mapping[str, Null], real_scores: Mapping[str, RealScore]) -> dict[str, float]:
    """Return metric key -> what real photos have, at the number of photos nearest to that of the pictures."""
    specs = known_specs((*nulls, *real_scores))
    aims = {key: aim_of(spec, nulls.get(key), real_scores.get(key)) for key, spec in specs.items()}
    return {key: aim for key, aim in aims.items() if aim is not None}


def evaluate_samples(
    manifest: SamplesManifest,
    folder: Path,
    *,
    real: RealPhotos,
    extractors: Extractors,
    store: WorkStore,
    batch_size: int,
    n_draws: int,
    rng: np.random.Generator,
    made_by: str,
    aims: Mapping[str, float] | None = None,
) -> Evaluated:
    """Measure and score every valid sample in `folder`; `made_by` names the stage that can make them anew.

    `aims` (metric key -> what real photos have) asks for the differences to the best checkpoint too.
    A picture that is missing, changed or cannot be read counts as invalid. What is in memory at a time is the images of
    one step, of two where these have not the same cells.
    Raises PipelineError when there is no valid picture at all.
    """

    def decoded_before(hashes: Sequence[str]) -> set[str]:
        return stored_keys(store, pixel_measure_kind(), hashes)

    manifest = checked_samples(manifest, folder, decoded_before=decoded_before, made_by=made_by)
    rows = sample_rows(manifest, folder, made_by=made_by)
    together = [row for of_step in rows.values() for row in of_step]
    measured = complete_features(together, extractors, store, batch_size=batch_size, what=folder.name)

    def read(step: int) -> ImageSet:
        if rows[step]:
            return read_features(rows[step], extractors, store)
        return read_features(together[:1], extractors, store).rows([])

    sets = StepSets(manifest.steps, read)
    specs = applicable_specs(extractors.infos)
    ids, colours = zip(*((prompt.prompt_id, prompt.colour) for prompt in manifest.prompts), strict=True)
    resampling = resampling_of(ids, n_draws, rng, colours=colours)
    return evaluated_sets(manifest, measured, sets, real=real, specs=specs, resampling=resampling, aims=aims)


def evaluated_sets(
    manifest: SamplesManifest,
    measured: Measured,
    sets: Mapping[int, ImageSet],
    *,
    real: RealPhotos,
    specs: Mapping[str, MetricSpec],
    resampling: Resampling,
    aims: Mapping[str, float] | None,
) -> Evaluated:
    """Score measured samples; see `evaluate_samples`."""
    scores = score_steps(sets, real, specs, resampling)
    best = {} if aims is None else best_steps(scores, specs, aims)
    add_differences_to_best(scores, best, sets, real=real, specs=specs, resampling=resampling)
    return Evaluated(
        manifest=manifest,
        measured=measured,
        sets=sets,
        real=real,
        specs=specs,
        scores=tuple(scores),
        resampling=resampling,
        best_steps=best,
    )
