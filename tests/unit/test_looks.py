import pytest

from loupe.errors import PipelineError
from loupe.evaluation_records import ExtractorInfo
from loupe.looks import look_note, looks_at, looks_file, read_looks, remember_look
from loupe.records import SampleRecord, SamplesManifest

OF = {"test_sha256": "t" * 64}


def seen(picture="p", fingerprint="f"):
    """Pictures of two steps in a run whose checkpoints have that fingerprint."""
    samples = [
        SampleRecord(
            prompt_id="a", seed_index=0, step=step, seed=1, file=f"a-0/{step}.png", sha256=picture * 64,
            invalid_reason=None,
        )
        for step in (0, 400)
    ]  # fmt: skip
    return SamplesManifest.model_construct(samples=tuple(samples), checkpoints_fingerprint=fingerprint * 64)


def eyes(network="n"):
    return (ExtractorInfo(name="eyes", role="features", kind="custom", sha256=network * 64, resize="none"),)


def test_a_choice_counts_once_and_every_other_one_too(tmp_path):
    assert read_looks(looks_file(tmp_path)) == ()
    first = remember_look(tmp_path, seen(), eyes(), **OF, step=400)
    assert remember_look(tmp_path, seen(), eyes(), **OF, step=400) == first
    assert remember_look(tmp_path, seen(fingerprint="g"), eyes(), **OF, step=400) == first, "only computed anew"
    assert len(remember_look(tmp_path, seen("q"), eyes(), **OF, step=300)) == 2
    looks = remember_look(tmp_path, seen(), eyes("m"), **OF, step=400)

    assert [look.step for look in looks] == [400, 300, 400]
    assert looks_at(OF["test_sha256"], read_looks(looks_file(tmp_path))) == looks


def test_looks_at_another_test_split_are_others(tmp_path):
    remember_look(tmp_path, seen(), eyes(), **OF, step=400)

    assert len(remember_look(tmp_path, seen(), eyes(), test_sha256="u" * 64, step=300)) == 1
    assert len(read_looks(looks_file(tmp_path))) == 2


def test_the_note_says_how_often_and_at_what(tmp_path):
    once = remember_look(tmp_path, seen(), eyes(), **OF, step=400)
    twice = remember_look(tmp_path, seen("q"), eyes(), **OF, step=300)

    assert look_note(()).endswith("how often this test split was looked at is not known here.")
    assert look_note(once) == "Looked at once, after the choice was made."
    assert look_note(twice).startswith("This test split has been looked at 2 times")
    assert "(of steps 400, 300)" in look_note(twice)


def test_a_damaged_record_is_named_with_its_mend(tmp_path):
    looks_file(tmp_path).write_text("{")
    with pytest.raises(PipelineError, match=r"is damaged\. Remove it; the count of looks"):
        remember_look(tmp_path, seen(), eyes(), **OF, step=1)
