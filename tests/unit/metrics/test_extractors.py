"""Extractors: missing, altered or untrained ones are refused at once; what decides features decides the store's key."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from loupe.errors import PipelineError
from loupe.evaluation_records import ReferenceManifest
from loupe.metrics import extractor_keys, extractors, inception
from loupe.metrics.clip import find_demo_clip, load_clip
from loupe.metrics.demo_classifier import demo_classifier_info, load_demo_classifier
from loupe.metrics.extractor_keys import Machine
from loupe.metrics.extractors import Extractors, resolve_extractors
from loupe.metrics.images import MadeImage
from loupe.metrics.measure import ImageRow, complete_features
from loupe.workstore import WorkStore
from tests.unit.metrics.small_run import (
    COLOURS,
    toy_images,
    write_toy_classifier,
    write_toy_clip,
)

CPU = Machine(device="cpu", identity="cpu test")


# --- the standard Inception ------------------------------------------------------------------------------------------


def test_missing_inception_says_where_to_put_it(no_weights: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        inception.find_inception("")
    message = str(caught.value)
    assert str(no_weights / "torch" / "hub" / "checkpoints" / inception.FILE_NAME) in message
    assert inception.URL in message
    assert "fd_demo" in message


def test_a_wrong_path_is_named() -> None:
    with pytest.raises(PipelineError, match=r"no/such\.pth is not there"):
        inception.find_inception("no/such.pth")


def test_an_altered_network_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_a, **_k: pytest.fail("the file was opened before its hash was checked"))
    path = tmp_path / inception.FILE_NAME
    path.write_bytes(b"random weights")
    for use in (inception.inception_info, lambda p: inception.load_inception(p, "cpu")):
        with pytest.raises(PipelineError, match=f"expected {inception.SHA256}"):
            use(path)


def test_the_hash_is_the_one_that_the_file_name_carries() -> None:
    assert inception.SHA256.startswith(inception.FILE_NAME.removesuffix(".pth").rpartition("-")[2])


def test_the_known_network_yields_pool_features_and_unbiased_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real weights cannot be had here; a file of the same shape stands in for them under its own hash."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *_a, **_k: {})
    monkeypatch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_a, **_k: None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        reference = fidelity.FeatureExtractorInceptionV3("reference", ["2048", "logits_unbiased"])
    monkeypatch.undo()
    path = tmp_path / inception.FILE_NAME
    torch.save(reference.state_dict(), path)
    monkeypatch.setattr(inception, "SHA256", inception.hashlib.sha256(path.read_bytes()).hexdigest())
    batch = toy_images(2)
    found = inception.load_inception(path, "cpu")(batch)
    expected = reference(torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2))
    assert found["features"].shape == (2, 2048)
    assert found["logits"].shape == (2, 1008)
    assert np.allclose(found["features"], expected[0], atol=1e-6)
    assert np.allclose(found["logits"], expected[1], atol=1e-6)


# --- the demo's scorers ----------------------------------------------------------------------------------------------


def test_demo_classifier_does_not_depend_on_batch_or_order(demo: Path) -> None:
    extract = load_demo_classifier(demo / "classifier", "cpu")
    batch = toy_images(6)
    together = extract(batch)
    alone = [extract([image])["features"][0] for image in batch[::-1]][::-1]
    assert np.allclose(together["features"], alone, atol=1e-5)
    assert together["logits"].shape == (6, 2 * len(COLOURS))
    assert np.allclose(np.exp(together["logits"]).sum(axis=1), 1, atol=1e-5), "joint log-probabilities are normalised"
    assert together["colour_logits"].shape == (6, len(COLOURS))


def test_uint8_pixels_are_scaled_once(demo: Path) -> None:
    """A second division by 255 would make all pictures nearly black, without any error."""
    from loupe.metrics.classifier import load_classifier

    batch = toy_images(2)
    direct = load_classifier(demo / "classifier")(torch.from_numpy(np.stack(batch) / 255).permute(0, 3, 1, 2).float())
    assert np.allclose(load_demo_classifier(demo / "classifier", "cpu")(batch)["features"], direct.features, atol=1e-3)


def test_an_untrained_classifier_is_refused(tmp_path: Path) -> None:
    write_toy_classifier(tmp_path, trained=False)
    with pytest.raises(PipelineError, match="never trained"):
        load_demo_classifier(tmp_path, "cpu")


def test_an_untrained_clip_is_refused(tmp_path: Path) -> None:
    write_toy_clip(tmp_path, trained=False)
    with pytest.raises(PipelineError, match="never trained"):
        load_clip(find_demo_clip(tmp_path), "cpu")


def test_untrained_networks_are_all_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy_classifier(tmp_path / "classifier", trained=False)
    write_toy_clip(tmp_path / "clip", trained=False)
    monkeypatch.setattr("loupe.metrics.measure.measure_pixels", lambda _: pytest.fail("pixels were measured"))
    found = resolve_extractors(("demo", "demo-clip"), demo_folder=tmp_path, machine=CPU)
    rows = [ImageRow(cell=("p", 0), file=MadeImage("0" * 64, lambda: toy_images(1)[0]), text="red shoes", colour=None)]
    with pytest.raises(PipelineError, match=r"(?s)evaluate\.extractors: 2 problems.*never trained.*never trained"):
        complete_features(rows, found, WorkStore(tmp_path / ".work"), batch_size=2, what="test")


def test_clip_features_are_those_of_open_clip(demo: Path) -> None:
    import open_clip
    from PIL import Image

    batch, texts = toy_images(3), ["a red shoe", "a blue shoe"]
    network = load_clip(find_demo_clip(demo / "clip"), "cpu")
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{demo / 'clip'}")
    model.eval()
    tokenizer = open_clip.SimpleTokenizer(bpe_path=str(demo / "clip" / "bpe.txt.gz"))
    with torch.no_grad():
        expected = model.encode_image(torch.stack([preprocess(Image.fromarray(image)) for image in batch]))
        expected_text = model.encode_text(tokenizer(texts))
    assert np.allclose(network.images(batch)["image"], expected, atol=1e-5)
    assert np.allclose(network.texts(texts)["text"], expected_text, atol=1e-5)


def test_a_text_that_the_tokenizer_cuts_can_be_told(demo: Path) -> None:
    found = load_clip(find_demo_clip(demo / "clip"), "cpu").texts(["ab", "long " * 60])
    assert found["n_tokens"].tolist() == [4, 242]
    assert (found["n_tokens"] > found["context_length"]).tolist() == [False, True]


def test_everything_that_is_missing_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        resolve_extractors(("demo", "demo-clip"), demo_folder=tmp_path, machine=CPU)
    message = str(caught.value)
    assert "2 problems" in message
    assert "evaluate.extractors names demo, but" in message
    assert "evaluate.extractors names demo-clip, but" in message
    assert "make demo-kit" in message


def test_the_stores_kind_follows_weights_settings_and_machine(demo: Path, tmp_path: Path) -> None:
    def kinds(folder: Path, machine: Machine = CPU) -> tuple[str, ...]:
        found = resolve_extractors(("demo", "demo-clip"), demo_folder=folder, machine=machine)
        return tuple(member.key.kind for member in found.members)

    copy = tmp_path / "demo"
    shutil.copytree(demo, copy)
    before = kinds(demo)
    assert kinds(copy) == before
    assert set(kinds(demo, Machine("cuda", "cuda H"))).isdisjoint(before)
    (copy / "clip" / "bpe.txt.gz").write_bytes(b"other merges")
    config = copy / "classifier" / "config.json"
    config.write_text(config.read_text() + " ")
    assert set(kinds(copy)).isdisjoint(before)


def test_a_network_loads_once_per_process(demo: Path) -> None:
    found = resolve_extractors(("demo", "demo-clip"), demo_folder=demo, machine=CPU)
    classifier, _ = found.members
    assert classifier.load() is classifier.load()
    assert classifier.colours == tuple(COLOURS)


def test_batch_size_changes_no_bit_of_what_networks_say(demo: Path) -> None:
    """The network itself rounds by the number of rows: only calls of one size say the same about a picture."""
    for machine, n_rows in ((CPU, extractor_keys.ROWS_ON_CPU), (Machine("cuda", "cuda H"), extractor_keys.ROWS_ON_GPU)):
        sizes: list[int] = []

        def compute(items: Sequence[float], sizes: list[int] = sizes) -> dict[str, np.ndarray]:
            sizes.append(len(items))
            return {"value": np.array(items)[:, None]}

        in_equal_calls = extractors._in_equal_calls(compute, machine)
        assert in_equal_calls(list(range(41)))["value"].ravel().tolist() == list(range(41))
        assert in_equal_calls([5])["value"].tolist() == [[5]]
        assert set(sizes) == {n_rows}

    classifier, clip = resolve_extractors(("demo", "demo-clip"), demo_folder=demo, machine=CPU).members
    texts = [f"a {'very ' * i}red shoe" for i in range(20)]
    for function, items in (
        (classifier.load(), toy_images(20)),
        (clip.load().images, toy_images(20)),
        (clip.load().texts, texts),
    ):
        whole = function(items)
        for size in (1, 7):
            parts = [function(items[start : start + size]) for start in range(0, 20, size)]
            assert all(np.array_equal(np.concatenate([p[name] for p in parts]), whole[name]) for name in whole)


def test_reference_of_other_extractors_is_refused(demo: Path) -> None:
    found = resolve_extractors(("demo", "demo-clip"), demo_folder=demo, machine=CPU)
    assert found.as_in(measured_with(found)) == found
    other = found.infos[0].model_copy(update={"sha256": "f" * 64})
    with pytest.raises(PipelineError, match="Run: dvc repro --force --single-item reference && dvc repro"):
        found.as_in(measured_with(replace(found, members=(replace(found.members[0], info=other), found.members[1]))))


# --- extractors that are not there -----------------------------------------------------------------------------------


def measured_with(extractors: Extractors) -> ReferenceManifest:
    return ReferenceManifest(
        extractors=extractors.infos, n_real={}, nulls={}, real_scores={}, left_out=dict(extractors.left_out),
        surroundings=extractors.surroundings, files={},
    )  # fmt: skip


def test_photos_that_were_measured_with_other_libraries_do_not_compare(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measured_with(resolved(demo, "demo", "demo-clip"))
    assert resolved(demo, "demo", "demo-clip").as_in(before).entries == ("demo", "demo-clip")
    versions = extractor_keys.library_versions
    for release, is_other in (("+cpu", False), (".1", True)):
        newer = lambda *names: {name: found + release for name, found in versions(*names).items()}  # noqa: B023, E731
        monkeypatch.setattr(extractor_keys, "library_versions", newer)
        now = resolved(demo, "demo", "demo-clip")
        if is_other:
            with pytest.raises(PipelineError, match="library versions of demo-classifier, demo-clip than there are"):
                now.as_in(before)
        else:
            assert now.as_in(before).members == now.members


def resolved(demo: Path, *names: str) -> Extractors:
    return resolve_extractors(names, demo_folder=demo, machine=CPU)


def test_one_that_nothing_goes_by_is_left_out_with_the_reason(demo: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered.pth"
    altered.write_bytes(b"other weights")
    entries = ("demo", "demo-clip", f"inception:{altered}", "aesthetic:no/such-model", "ViT-B-32/no/such.safetensors")
    found = resolved(demo, *entries)
    assert found.infos == resolved(demo, "demo", "demo-clip").infos
    assert found.entries == ("demo", "demo-clip")
    assert tuple(found.left_out) == entries[2:]
    assert f"expected {inception.SHA256}" in found.left_out[f"inception:{altered}"]
    assert all(note.startswith(f"no scores by {entry}: ") for note, entry in zip(found.notes, entries[2:], strict=True))


@pytest.mark.parametrize(
    "entries",
    [
        ("inception:/no/such.pth", "demo", "demo-clip"),  # the first of pictures: another would decide
        ("demo", "ViT-B-32/no/such.safetensors", "demo-clip"),  # the first of texts
        ("demo", "demo-clip", "aesthetic:no/such-model", "aesthetic:another/model"),  # another would take its columns
        ("demo", "demo-clip", "ViT-B-32/openai", "ViT-L-14/openai"),  # another would write clip_score
        ("demo", "demo-clip", "inception:/no/such.pth", "dinov3"),  # a name that means nothing, whatever its place
    ],
)
def test_one_whose_absence_would_change_more_than_its_own_scores_is_refused(demo: Path, entries: tuple) -> None:
    with pytest.raises(PipelineError):
        resolved(demo, *entries)


def test_with_a_name_that_means_nothing_all_else_that_is_absent_is_said_too(demo: Path) -> None:
    with pytest.raises(PipelineError, match=r"(?s)2 problems.*no extractor is called 'dinov3'.*no/such\.pth is not"):
        resolved(demo, "demo", "demo-clip", "inception:/no/such.pth", "dinov3")


def test_what_came_after_the_reference_was_measured_is_left_out_until_that_is_measured_anew(
    demo: Path,
) -> None:
    absent = resolved(demo, "demo", "demo-clip", "inception:/no/such.pth")
    both = replace(
        absent, members=(*absent.members, absent.members[0]), entries=(*absent.entries, "inception:/no/such.pth"),
        left_out={},
    )  # fmt: skip
    found = both.as_in(measured_with(absent))
    assert found.members == absent.members
    assert "dvc repro --force --single-item reference" in found.left_out["inception:/no/such.pth"]


def test_what_has_gone_since_the_reference_was_measured_is_left_out_and_a_replaced_one_still_refused(
    demo: Path,
) -> None:
    now = resolved(demo, "demo", "demo-clip", "inception:/no/such.pth")
    third = replace(now.members[0], info=now.infos[0].model_copy(update={"name": "inception"}))
    before = measured_with(replace(now, members=(*now.members, third), left_out={}))
    assert now.as_in(before) == now
    replaced = now.infos[0].model_copy(update={"sha256": "f" * 64})
    with pytest.raises(PipelineError, match="data/reference was measured with"):
        now.as_in(before.model_copy(update={"extractors": (replaced, *before.extractors[1:])}))


def test_info_of_the_demo_classifier_names_what_it_is(demo: Path) -> None:
    info = demo_classifier_info(demo / "classifier")
    assert (info.name, info.role, info.kind) == ("demo-classifier", "inception", "domain_trained")
