"""The control of real photos with wrong captions."""

import numpy as np

from loupe.metrics.controls import _with_other_captions
from loupe.metrics.image_set import CLIP_TEXT, ImageSet


def test_no_photo_keeps_its_own_caption() -> None:
    captions = np.arange(20.0)[:, None]
    photos = ImageSet(tuple((f"r{i}", 0) for i in range(20)), {CLIP_TEXT: captions})
    moved = _with_other_captions(photos, np.random.default_rng(0)).array(CLIP_TEXT)
    assert (moved != captions).all()
    assert sorted(moved[:, 0]) == sorted(captions[:, 0])
