"""The control of real photos with wrong captions."""

from __future__ import annotations

import numpy as np
import pytest

from loupe.atomic_io import read_record
from loupe.evaluation_records import ReferenceManifest
from loupe.metrics.image_set import ASKED_COLOUR, ASKED_FAMILY, CLIP_IMAGE, CLIP_TEXT, FEATURES, ImageSet
from loupe.metrics.image_set_files import read_image_set
from tests.unit.metrics.evaluation_project import Run


@pytest.fixture
def sets(run: Run) -> tuple[ImageSet, ImageSet]:
    """The val photos, and the control that the stage kept."""
    reference = read_record(run.paths.reference / "manifest.json", ReferenceManifest, made_by="reference")
    photos = read_image_set(run.paths.reference, "val", reference.files, made_by="reference")
    shuffled = read_image_set(run.paths.evaluation, "shuffled", run.evaluation().files, made_by="evaluate")
    return photos, shuffled


def test_no_photo_keeps_its_own_caption_and_every_caption_is_there(sets: tuple[ImageSet, ImageSet]) -> None:
    photos, shuffled = (images.array(CLIP_TEXT) for images in sets)
    assert len(np.unique(photos, axis=0)) == len(photos), "captions that are alike could not be told apart"
    assert (shuffled != photos).any(axis=1).all()
    assert sorted(map(tuple, shuffled)) == sorted(map(tuple, photos))


def test_what_a_caption_asks_for_moves_with_it_and_the_pictures_stay(sets: tuple[ImageSet, ImageSet]) -> None:
    photos, shuffled = sets
    row_of = {tuple(text): row for row, text in enumerate(photos.array(CLIP_TEXT))}
    moved = [row_of[tuple(text)] for text in shuffled.array(CLIP_TEXT)]
    for name in (ASKED_COLOUR, ASKED_FAMILY):
        assert shuffled.array(name).tolist() == photos.array(name)[moved].tolist()
    for name in (FEATURES, CLIP_IMAGE):
        assert np.array_equal(shuffled.array(name), photos.array(name))
