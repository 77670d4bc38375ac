"""From the names in params.yaml to extractors: what they are is known at once, the networks load when needed.

A missing or altered extractor is a PipelineError here, before any image is read, or left out where nothing goes by it.
The demo's names are resolved here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loupe.errors import PipelineError, UnknownNameError, nearest_names, problems_message
from loupe.evaluation_records import ExtractorInfo, ReferenceManifest
from loupe.metric_specs import CLIP_FILE, MEASURE_ANEW, array_prefix, column_name
from loupe.metrics.clip import ClipNetwork, ClipSource, clip_info, find_clip, find_demo_clip, load_clip
from loupe.metrics.demo_classifier import CONFIG, demo_classifier_info, demo_colours, load_demo_classifier
from loupe.metrics.extractor_keys import ExtractorKey, Machine, extractor_key
from loupe.metrics.feature_store import Compute
from loupe.metrics.images import Pixels
from loupe.metrics.inception import find_inception, inception_info, load_inception
from loupe.metrics.transformer_models import KINDS, TransformerSource, find_transformer, transformer_info
from loupe.metrics.transformer_networks import load_picture_model, load_preference_model

DEMO, DEMO_CLIP_ENTRY, INCEPTION = "demo", "demo-clip", "inception"
EXAMPLES = (DEMO, DEMO_CLIP_ENTRY, INCEPTION, *KINDS)
"""Names of entries, without what may follow their colon."""
ROLES_WITH_TEXTS = ("clip", "preference")
ImageFunction = Callable[[Sequence[Pixels]], Mapping[str, NDArray]]
"""Images (uint8 RGB, equally large) -> arrays with a row per image."""


@dataclass(frozen=True, slots=True)
class PictureExtractor:
    """A network that looks at pictures alone: features, and classes or a rating where it has them."""

    info: ExtractorInfo
    key: ExtractorKey
    load: Callable[[], ImageFunction]
    """Loads the network on the first call and returns the same one ever after."""
    colours: tuple[str, ...] = ()
    """Names of its colour classes; () when it has none."""


@dataclass(frozen=True, slots=True)
class TextExtractor:
    """A network that looks at pictures and texts."""

    info: ExtractorInfo
    key: ExtractorKey
    load: Callable[[], ClipNetwork]


Extractor = PictureExtractor | TextExtractor


@dataclass(frozen=True, slots=True)
class Extractors:
    """What measures the pictures of a run, in the order of evaluate.extractors."""

    members: tuple[Extractor, ...]
    entries: tuple[str, ...]
    """The entry of evaluate.extractors that each member is."""
    left_out: Mapping[str, str]
    """Entry -> why nothing is measured with it; never the first of pictures or of texts."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the scores should know."""
        return tuple(f"no scores by {entry}: {reason}" for entry, reason in self.left_out.items())

    @property
    def infos(self) -> tuple[ExtractorInfo, ...]:
        """What they are, for manifests."""
        return tuple(member.info for member in self.members)

    @property
    def surroundings(self) -> dict[str, str]:
        """Name -> ExtractorKey.surroundings, for data/reference."""
        return {member.info.name: member.key.surroundings for member in self.members}

    def prefix(self, member: Extractor) -> str:
        """Return the prefix of its arrays in an image set."""
        return array_prefix(member.info, self.infos)

    def as_in(self, reference: ReferenceManifest) -> Extractors:
        """Return those that data/reference was measured with too, the others left out.

        Raises PipelineError when one has been replaced since: distances would mean nothing.
        """
        kept = [(e, m) for e, m in zip(self.entries, self.members, strict=True) if e not in reference.left_out]
        late = {
            entry: f"not in data/reference. To measure with it: {MEASURE_ANEW}"
            for entry in self.entries
            if entry in reference.left_out
        }
        gone = [entry for entry in self.left_out if entry not in reference.left_out]
        now = tuple(member.info for _, member in kept)
        before = tuple(info for info in reference.extractors if info in now) if gone else reference.extractors
        if now != before or len(now) + len(gone) != len(reference.extractors):
            of_reference, of_run = (
                ", ".join(f"{e.name} ({e.sha256[:12]})" for e in infos) for infos in (reference.extractors, now)
            )
            raise PipelineError(
                f"data/reference was measured with {of_reference}, this run measures with {of_run}. Run: {MEASURE_ANEW}"
            )
        other = [
            member.info.name
            for _, member in kept
            if reference.surroundings.get(member.info.name, member.key.surroundings) != member.key.surroundings
        ]
        if other:
            raise PipelineError(
                f"data/reference was measured with other settings files or library versions of {', '.join(other)} than "
                f"there are now: photos and pictures would not compare. Run: {MEASURE_ANEW}"
            )
        return Extractors(
            members=tuple(member for _, member in kept),
            entries=tuple(entry for entry, _ in kept),
            left_out={**self.left_out, **late},
        )


def resolve_extractors(names: Sequence[str], *, demo_folder: Path, machine: Machine) -> Extractors:
    """Return the extractors of evaluate.extractors; all that is wrong is in one PipelineError.

    One whose files are not there, or not what they should be, is left out where nothing else depends on it. The first
    of pictures and the first of texts decide in `select`, by a rule that was fixed before the run.
    """
    problems, members, left_out = [], {}, {}
    for name in names:
        try:
            members[name] = _extractor(name, demo_folder, machine)
        except UnknownNameError as error:
            problems.append(str(error))
        except PipelineError as error:
            if _can_be_spared(name, names):
                left_out[name] = str(error)
            else:
                problems.append(str(error))
    if not problems:
        problems = _wrong_together([member.info for member in members.values()])
    if problems:
        everything = [*problems, *left_out.values()]
        raise PipelineError(problems_message("evaluate.extractors", everything) if everything[1:] else everything[0])
    return Extractors(members=tuple(members.values()), entries=tuple(members), left_out=left_out)


def _can_be_spared(name: str, names: Sequence[str]) -> bool:
    """Whether every other entry keeps its place and its columns, and `select` its first two, where this one is absent.

    Not the first of pictures or of texts. Nor one whose columns another of its group would take: of raters the first,
    and of open_clip models the first with a pretrained tag, which alone writes `clip_score`.
    """
    group = _group(name)
    same = [entry for entry in names if _group(entry) == group]
    if group not in ("pictures", "texts"):
        return same[0] != name or len(same) == 1
    tagged = [entry for entry in same if _has_tag(entry)] if group == "texts" else []
    return same[0] != name and (name not in tagged[:1] or len(tagged) == 1)


def _has_tag(entry: str) -> bool:
    return entry != DEMO_CLIP_ENTRY and CLIP_FILE.fullmatch(entry) is None


def _group(entry: str) -> str:
    start = entry.partition(":")[0]
    if start in KINDS and KINDS[start].role != "features":
        return KINDS[start].role
    return "pictures" if start in (DEMO, INCEPTION, *KINDS) else "texts"


def _wrong_together(infos: Sequence[ExtractorInfo]) -> list[str]:
    problems = []
    columns = [column_name(info.name) for info in infos]
    if twice := sorted({info.name for info, column in zip(infos, columns, strict=True) if columns.count(column) > 1}):
        problems.append(
            f"evaluate.extractors: {', '.join(twice)} would write the same columns more than once; keep one of each."
        )
    roles = {info.role for info in infos}
    if not roles & {"inception", "features"}:
        problems.append("evaluate.extractors has no network of pictures; add demo, inception or dinov2.")
    if "clip" not in roles:
        problems.append(
            "evaluate.extractors has no network of pictures and texts; add demo-clip or an open_clip model, e.g. "
            "ViT-B-32/laion2b_s34b_b79k."
        )
    return problems


def _extractor(name: str, demo_folder: Path, machine: Machine) -> Extractor:
    start, _, rest = name.partition(":")
    if name == DEMO:
        return _demo_classifier(demo_folder / "classifier", machine)
    if start == INCEPTION:
        return _inception(rest, machine)
    if start in KINDS:
        return _transformer(find_transformer(start, rest), machine)
    if name == DEMO_CLIP_ENTRY or "/" in name:
        return _clip(find_demo_clip(demo_folder / "clip") if name == DEMO_CLIP_ENTRY else find_clip(name), machine)
    near = nearest_names(start, EXAMPLES)
    raise UnknownNameError(
        f"evaluate.extractors: no extractor is called {name!r}."
        f"{f' Did you mean {near[0]}?' if near else ''} Known: {', '.join(EXAMPLES)}, and "
        "<open_clip architecture>/<pretrained tag, or local safetensors file and perhaps @<pretrained tag>>."
    )


def _demo_classifier(folder: Path, machine: Machine) -> PictureExtractor:
    info = demo_classifier_info(folder)
    key = extractor_key(info, machine, "demo_classifier.py", libraries=("torch",), settings_files=[folder / CONFIG])
    load = _loader(partial(load_demo_classifier, folder, machine.device), machine)
    return PictureExtractor(info=info, key=key, load=load, colours=demo_colours(folder))


def _inception(place: str, machine: Machine) -> PictureExtractor:
    info = inception_info(path := find_inception(place))
    key = extractor_key(info, machine, "inception.py", libraries=("torch", "torch-fidelity"))
    return PictureExtractor(info=info, key=key, load=_loader(partial(load_inception, path, machine.device), machine))


def _clip(source: ClipSource, machine: Machine) -> TextExtractor:
    info = clip_info(source)
    libraries, around = ("torch", "open-clip-torch", "torchvision", "pillow"), {"preprocess": source.preprocess}
    key = extractor_key(info, machine, "clip.py", libraries=libraries, settings_files=source.settings_files, **around)
    return TextExtractor(info=info, key=key, load=_text_loader(partial(load_clip, source, machine.device), machine))


def _transformer(source: TransformerSource, machine: Machine) -> Extractor:
    info = transformer_info(source)
    libraries = ("torch", "transformers", "torchvision", "pillow")
    key = extractor_key(
        info, machine, "transformer_networks.py", libraries=libraries, settings_files=source.settings_files
    )
    if info.role in ROLES_WITH_TEXTS:
        load_both = partial(load_preference_model, source, machine.device)
        return TextExtractor(info=info, key=key, load=_text_loader(load_both, machine))
    load = _loader(partial(load_picture_model, source, machine.device), machine)
    return PictureExtractor(info=info, key=key, load=load)


def _loader(load: Callable[[], ImageFunction], machine: Machine) -> Callable[[], ImageFunction]:
    return cache(lambda: _in_equal_calls(load(), machine))


def _text_loader(load: Callable[[], ClipNetwork], machine: Machine) -> Callable[[], ClipNetwork]:
    def both() -> ClipNetwork:
        network = load()
        return ClipNetwork(_in_equal_calls(network.images, machine), _in_equal_calls(network.texts, machine))

    return cache(both)


def _in_equal_calls(compute: Compute, machine: Machine) -> Compute:
    """Return the function in calls of one size; the last one is filled up with copies."""
    n_rows = machine.rows

    def equal_calls(items: Sequence[Any]) -> Mapping[str, NDArray]:
        filled = [*items, *[items[-1]] * (-len(items) % n_rows)]
        parts = [compute(filled[start : start + n_rows]) for start in range(0, len(filled), n_rows)]
        return {name: np.concatenate([part[name] for part in parts])[: len(items)] for name in parts[0]}

    return equal_calls
