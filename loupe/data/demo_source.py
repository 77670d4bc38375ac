"""The `demo` source: renders our own product catalogue into the work store, once per settings and drawing code.

What it leaves has the layout of `kaggle-fashion` and is read as such; nothing after it knows the difference.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from loupe.workstore import WorkStore, fingerprint, library_versions, source_fingerprint

_KIND = "demo-catalogue"
_RENDERER = Path(__file__).parents[1] / "demo" / "catalogue"


def rendered_catalogue(store: WorkStore, *, n_items: int, seed: int, size_px: int) -> Path:
    """Return the folder of the catalogue with these settings, rendering it where it is not there yet.

    It is rendered beside its place and renamed when whole, so that a killed run leaves nothing half-done behind.
    """
    from loupe.demo.catalogue import write_catalogue

    settings = {"n_items": n_items, "seed": seed, "size_px": size_px}
    code = source_fingerprint(_RENDERER)
    key = fingerprint({**settings, "code": code, "libraries": library_versions("numpy", "pillow")})
    place = store.path(_KIND, key)
    with store.lock(_KIND, key):
        if not place.exists():
            for abandoned in place.parent.glob(f".{key[:12]}-*"):
                shutil.rmtree(abandoned)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key[:12]}-", dir=place.parent))
            try:
                write_catalogue(temporary, **settings)
                temporary.replace(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return place
