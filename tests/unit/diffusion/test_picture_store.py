"""Pictures are written beside the drawing."""

import threading

from loupe.diffusion import picture_store
from loupe.diffusion.picture_store import PictureOutcome
from loupe.workstore import WorkStore


def test_the_next_picture_is_drawn_while_the_last_is_being_written(tmp_path, monkeypatch):
    """The first write waits for the third picture: one after the other it would never come."""
    third_is_drawn, waited = threading.Event(), []

    def write(item, picture, store, output):
        waited.append(third_is_drawn.wait(timeout=20))
        return PictureOutcome(sha256=None, invalid_reason=None)

    def drawn():
        for place in range(3):
            if place == 2:
                third_is_drawn.set()
            yield place, None

    monkeypatch.setattr(picture_store, "_write_picture", write)
    assert [item for item, _ in picture_store.keep(drawn(), WorkStore(tmp_path), tmp_path)] == [0, 1, 2]
    assert waited == [True, True, True]
