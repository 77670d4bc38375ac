import pytest

from loupe.atomic_io import read_record, sha256_file, write_csv
from loupe.diffusion.export import export_checkpoint, read_evidence
from loupe.diffusion.model_card import Evidence, SuggestedSettings
from loupe.errors import PipelineError
from loupe.evaluation_records import Selection
from loupe.records import DatasetManifest, ExportManifest
from tests.unit.diffusion.tiny_checkpoints import made_up_adapter, write_checkpoint, write_checkpoints

DATASET = DatasetManifest(
    source="pairs", resolution_px=64, seed=0, n_rows=12, n_selected=12, n_missing=0, missing_ids=(),
    n_examples={"train": 10, "val": 1, "test": 1}, malformed_rows=(), rejected=(), findings=(), attribute_counts={},
    captions_sha256={},
)  # fmt: skip
SETTINGS = SuggestedSettings(guidance_scale=4.5, num_inference_steps=17, negative_prompt="blurry")
CHOSEN = Selection(
    verdict="selected", step=2, reason="Step 2 is nearest to the photos.", gates_failed={}, tied_steps=()
)
UNKNOWN = Evidence(selection=None, scores=(), n_images=None, n_real=None)


@pytest.fixture
def source(tiny_base_model, tmp_path):
    return write_checkpoints(tmp_path / "checkpoints", tiny_base_model, (2, 4))


def _export(source, output, *, step=2, evidence=UNKNOWN):
    return export_checkpoint(
        source, step=step, name="shoes", trigger="a photo of shoes", dataset=DATASET, evidence=evidence,
        settings=SETTINGS, full_pipeline=False, output=output,
    )  # fmt: skip


def _table(path):
    write_csv(
        path,
        ["step", "n_images", "n_real", "fd_demo", "clip_demo"],
        [
            {"step": 0, "n_images": 64, "n_real": 21, "fd_demo": 250.123},
            {"step": 2, "n_images": 64, "n_real": 21, "fd_demo": 75.5, "clip_demo": 31.25},
        ],
    )
    return path


def test_the_manifest_vouches_for_every_file_and_the_card_is_one_of_them(source, tmp_path):
    output = tmp_path / "export"
    manifest = _export(source, output)
    assert read_record(output / "manifest.json", ExportManifest, made_by="export") == manifest
    assert {file.file for file in manifest.files} == {
        path.relative_to(output).as_posix()
        for path in output.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert all(sha256_file(output / file.file) == file.sha256 for file in manifest.files)
    assert (manifest.step, manifest.rank, manifest.alpha) == (2, 2, 8.0)


def test_the_card_tells_the_evidence_and_how_to_load_it(source, tmp_path):
    evidence = read_evidence(_table(tmp_path / "checkpoints.csv"), step=2, selection=CHOSEN)
    _export(source, tmp_path / "export", evidence=evidence)
    card = (tmp_path / "export" / "README.md").read_text()
    assert "Step 2 is nearest to the photos." in card
    assert "64 pictures each" in card
    assert "against 21 real photos" in card
    assert "| lower | 250.1 | 75.5 |" in card
    assert "| higher | not computed | 31.25 |" in card
    assert "17 steps, guidance 4.5, negative prompt “blurry”" in card
    assert "rank 2, alpha 8" in card
    assert "<lora:shoes:1>" in card
    assert 'load_lora_weights("shoes-diffusers"' in card
    assert "10 images" in card


def test_the_card_of_no_clear_winner_says_so_first(source, tmp_path):
    undecided = CHOSEN.model_copy(update={"verdict": "no clear winner"})
    _export(source, tmp_path / "export", evidence=Evidence(undecided, (), None, None))
    assert "**There was no clear winner.** Step 2" in (tmp_path / "export" / "README.md").read_text()


def test_the_card_of_a_step_that_a_person_named_claims_no_recommendation(source, tmp_path):
    _export(source, tmp_path / "export", step=4)
    card = (tmp_path / "export" / "README.md").read_text()
    assert "Step 4 was named by a person" in card
    assert "Measured on" not in card


def test_a_step_without_scores_has_none(tmp_path):
    table = _table(tmp_path / "checkpoints.csv")
    assert read_evidence(table, step=99, selection=None) == UNKNOWN
    assert read_evidence(tmp_path / "absent.csv", step=2, selection=None) == UNKNOWN


@pytest.mark.parametrize(("step", "message"), [(0, "base model itself"), (3, "no such checkpoint; there are 2, 4")])
def test_what_is_no_checkpoint_cannot_be_exported(source, tmp_path, step, message):
    with pytest.raises(PipelineError, match=message):
        _export(source, tmp_path / "export", step=step)
    assert not (tmp_path / "export").exists()


def test_an_adapter_that_was_changed_after_training_is_not_exported(source, tmp_path):
    write_checkpoint(source.checkpoints_folder, 2, made_up_adapter(source.base_folder, seed=50))
    with pytest.raises(PipelineError, match="SHA-256"):
        _export(source, tmp_path / "export")
