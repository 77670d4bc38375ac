"""From the names in params.yaml to extractors: what they are is known at once, the networks load when needed.

A missing or altered extractor is a PipelineError here, before any image is read. The demo's names are resolved here and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from loupe.errors import PipelineError, problems_message
from loupe.evaluation_records import ExtractorInfo
from loupe.metrics.clip import ClipNetwork, clip_info, find_clip, find_demo_clip, load_clip
from loupe.metrics.demo_classifier import CONFIG, demo_classifier_info, demo_colours, load_demo_classifier
from loupe.metrics.images import Pixels
from loupe.metrics.inception import find_inception, inception_info, load_inception
from loupe.workstore import fingerprint, library_versions, source_fingerprint

DEMO = "demo"
HERE = Path(__file__).parent
Extractor = TypeVar("Extractor")

ImageFunction = Callable[[Sequence[Pixels]], Mapping[str, NDArray]]
"""Images (uint8 RGB, equally large) -> arrays with a row per image."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where networks run, and what of it can change the last bits of a feature."""

    device: str
    """cpu, cuda or mps."""
    identity: str


@dataclass(frozen=True, slots=True)
class InceptionExtractor:
    """The network behind Fréchet distance, Inception Score and, where it knows colours, the colour score."""

    info: ExtractorInfo
    kind: str
    """Of the work store; it names everything that decides the features besides the image."""
    load: Callable[[], ImageFunction]
    """Loads the network on the first call and returns the same one ever after."""
    colours: tuple[str, ...]
    """Names of its colour classes; () when it has none."""


@dataclass(frozen=True, slots=True)
class ClipExtractor:
    """The network behind the text-image score."""

    info: ExtractorInfo
    kind: str
    load: Callable[[], ClipNetwork]


@dataclass(frozen=True, slots=True)
class Extractors:
    """What measures the pictures of a run."""

    inception: InceptionExtractor
    clip: ClipExtractor

    @property
    def infos(self) -> tuple[ExtractorInfo, ...]:
        """What they are, for manifests."""
        return (self.inception.info, self.clip.info)

    def require_same(self, measured_with: tuple[ExtractorInfo, ...]) -> None:
        """Raise PipelineError when data/reference was measured with others: distances would mean nothing."""
        if measured_with != self.infos:
            before, now = (
                ", ".join(f"{e.name} ({e.sha256[:12]})" for e in infos) for infos in (measured_with, self.infos)
            )
            raise PipelineError(
                f"data/reference was measured with {before}, this run measures with {now}. Run: dvc repro reference"
            )


def resolve_extractors(*, inception: str, clip: str, demo_folder: Path, machine: Machine) -> Extractors:
    """Return the extractors of evaluate.inception and evaluate.clip; all that is wrong is in one PipelineError."""
    problems: list[str] = []
    found_inception = _kept(problems, lambda: _inception_extractor(inception, demo_folder / "classifier", machine))
    found_clip = _kept(problems, lambda: _clip_extractor(clip, demo_folder / "clip", machine))
    if found_inception is None or found_clip is None:
        raise PipelineError(problems_message("extractors", problems) if len(problems) > 1 else problems[0])
    return Extractors(inception=found_inception, clip=found_clip)


def pixel_measure_kind() -> str:
    """Return the work store's kind of what is measured from pixels without a network."""
    code = ("background.py", "colour_families.py", "images.py", "pixel_measures.py", "silhouette.py")
    return _store_kind("pixels", {}, [HERE / name for name in code], ("numpy", "pillow", "scipy"))


def _kept(problems: list[str], resolve: Callable[[], Extractor]) -> Extractor | None:
    try:
        return resolve()
    except PipelineError as error:
        problems.append(str(error))
        return None


def _inception_extractor(name: str, demo_folder: Path, machine: Machine) -> InceptionExtractor:
    code = [HERE / "networks.py", HERE / "images.py"]
    if name == DEMO:
        info = demo_classifier_info(demo_folder)
        code += [HERE / "demo_classifier.py", HERE / "classifier.py", demo_folder / CONFIG]
        kind = _store_kind("inception", {"info": info.model_dump(), "machine": machine.identity}, code, ("torch",))
        load = cache(partial(load_demo_classifier, demo_folder, machine.device))
        return InceptionExtractor(info=info, kind=kind, load=load, colours=demo_colours(demo_folder))
    path = find_inception(name)
    info = inception_info(path)
    code += [HERE / "inception.py"]
    kind = _store_kind(
        "inception", {"info": info.model_dump(), "machine": machine.identity}, code, ("torch", "torch-fidelity")
    )
    return InceptionExtractor(
        info=info, kind=kind, load=cache(partial(load_inception, path, machine.device)), colours=()
    )


def _clip_extractor(name: str, demo_folder: Path, machine: Machine) -> ClipExtractor:
    source = find_demo_clip(demo_folder) if name == DEMO else find_clip(name)
    info = clip_info(source)
    code = [HERE / "networks.py", HERE / "images.py", HERE / "clip.py", *source.settings_files]
    libraries = ("torch", "open-clip-torch", "torchvision", "pillow")
    kind = _store_kind("clip", {"info": info.model_dump(), "machine": machine.identity}, code, libraries)
    return ClipExtractor(info=info, kind=kind, load=cache(partial(load_clip, source, machine.device)))


def _store_kind(role: str, parts: Mapping[str, Any], code: Sequence[Path], libraries: Sequence[str]) -> str:
    everything = {**parts, "code": source_fingerprint(*code), "libraries": library_versions(*libraries)}
    return f"features/{role}-{fingerprint(everything)[:32]}"
