"""Draws the previews of a run ahead, one after the other, while nobody waits for an answer of this server.

Without it everything works as well, but pictures that nobody has looked at take some tenths of a second to appear.
"""

from __future__ import annotations

import sys
import time
import traceback
from threading import Thread

from dashboard.current_run import current_store
from dashboard.pictures import (
    LAST_REQUEST,
    PREVIEW_SIDE_PX,
    PictureNotFoundError,
    draw_preview,
    keep_preview,
    kept_preview,
)
from loupe.records import SamplesManifest
from loupe.run_store import RunStore

QUIET_S = 1.0
"""It goes on when nobody has asked for anything for so long."""
_LOOK_AGAIN_S = 5.0


def start() -> None:
    """Start the one thread of this process that draws ahead; it ends with the process."""
    Thread(target=_draw_forever, name="previews ahead", daemon=True).start()


def draw_ahead(store: RunStore, manifest: SamplesManifest, *, quiet_s: float) -> None:
    """Draw every preview of a manifest's pictures that is not kept yet; small pictures need none."""
    if min(manifest.width_px, manifest.height_px) <= PREVIEW_SIDE_PX:
        return
    for sample in manifest.samples:
        while LAST_REQUEST.ago_s() < quiet_s:
            time.sleep(quiet_s / 4)
        try:
            if sample.sha256 and kept_preview(store, sample.sha256) is None:
                keep_preview(store, sample.sha256, draw_preview(store, sample.sha256))
        except PictureNotFoundError:
            continue  # The page says at its place what is wrong with it.


def _draw_forever() -> None:
    done: SamplesManifest | None = None
    said = ""
    while True:
        time.sleep(_LOOK_AGAIN_S)
        try:
            store = current_store()
            manifest = store.samples_manifest()
            if manifest is not None and manifest is not done:
                draw_ahead(store, manifest, quiet_s=QUIET_S)
                done = manifest
            said = ""
        except Exception:
            # A thread that ends would go unnoticed; the log says once why it rests, and it looks again later.
            trouble = traceback.format_exc()
            if trouble != said:
                print(trouble, file=sys.stderr, flush=True)
            said = trouble
