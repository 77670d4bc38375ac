"""Sorting, filtering and walking on the Compare page, and what its large view is given."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from dashboard.current_run import store_of
from loupe.atomic_io import write_bytes
from loupe.records import CaptionRecord
from tests.apps.page_driver import component_data, html_of, open_page
from tests.run_fixture import NASTY, Shape, age, complete_run


def rows_shown(html: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r'data-look="([^/"]+)/', html)))


def test_sorting_by_gain_and_by_the_lowest_score(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    """In the fixture the score is 18 + seed index for the base model, and 9 more at the end."""
    lowest = rows_shown(html_of(open_page(monkeypatch, runs["complete"], "compare", sort="Lowest clip")))
    assert [row[-1] for row in lowest] == ["0"] * 5 + ["1"] * 5
    app = open_page(monkeypatch, runs["complete"], "compare", sort="Biggest gain in clip", at="75")
    assert rows_shown(html_of(app))[-1] == "blue_shoes-1", "it is invalid at step 75, so it has no gain there"


def test_only_pictures_that_fail_a_gate_at_the_step(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    for gate, step, expected in (("invalid", "75", 1), ("background", "75", 9), ("background", "300", 0)):
        app = open_page(monkeypatch, runs["complete"], "compare", only=[gate], at=step)
        html = html_of(app)
        assert len(rows_shown(html)) == expected, (gate, step)
        assert ("No picture passes these filters" in html) == (expected == 0)


def test_a_colour_narrows_to_its_prompts(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    html = html_of(open_page(monkeypatch, runs["complete"], "compare", colour=["red", "no such colour"]))
    assert rows_shown(html) == ["red_shoes-0", "red_shoes-1"]


def test_one_slider_moves_all_pictures(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    app = open_page(monkeypatch, runs["complete"], "compare", layout="One step", at="base")
    assert set(re.findall(r'data-look="[^/]+/(\d+)"', html_of(app))) == {"0"}
    app.select_slider(key="at").set_value("150").run()
    html = html_of(app)
    assert set(re.findall(r'data-look="[^/]+/(\d+)"', html)) == {"150"}
    assert html.count('class="lp-img') == 10


def test_junk_in_sort_step_and_layout_shows_everything(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    app = open_page(
        monkeypatch, runs["complete"], "compare",
        sort="<x>", at="77", layout="?", only="z", colour="z", look="../../etc-1", a="9", b="x", view="y",
    )  # fmt: skip
    assert html_of(app).count('class="lp-img') == 50
    assert len(component_data(app)["rows"]) == 10


def test_a_link_with_a_number_too_long_to_be_one_shows_everything(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    app = open_page(monkeypatch, runs["complete"], "compare", look=f"red_shoes-{'9' * 5000}")
    assert len(component_data(app)["rows"]) == 10


def test_gates_come_with_the_scores_that_name_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`evaluate` may have written metrics/per_image.csv, but not yet metrics/checkpoints.csv, which names scores."""
    root = complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16, captions=0))
    age(root)
    scores = root / "metrics" / "checkpoints.csv"
    content = scores.read_bytes()
    scores.unlink()
    app = open_page(monkeypatch, root, "compare")
    write_bytes(scores, content)
    app.run()
    assert app.multiselect(key="only").options == ["invalid", "background", "colour"]


def test_the_large_view_gets_every_picture_with_scores_hash_and_command(
    monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]
) -> None:
    data = component_data(open_page(monkeypatch, runs["complete"], "compare", step=["300"]))
    assert [step["name"] for step in data["steps"]] == ["base", "75", "150", "225", "300"]
    row = next(row for row in data["rows"] if row["id"] == "red_shoes-1")
    assert (row["prompt_id"], row["seed_index"], row["seed"]) == ("red_shoes", 1, "1000001")
    cell = row["cells"]["300"]
    assert cell["url"] == f"/img/{cell['sha256']}"
    assert ["Text-image score (demo)", "28.0"] in cell["scores"]
    assert ["White background", "yes"] in cell["scores"]
    command = cell["step"].join(row["command"])
    assert command.startswith("python -m loupe.cli generate 'a professional product photo of red casual shoes'")
    assert "--prompt-id red_shoes --step 300 --count 2 --output" in command
    nasty = next(row for row in data["rows"] if row["prompt_id"] == "val_1000")
    assert nasty["prompt"] == NASTY


def test_the_large_view_says_why_a_picture_is_not_there(monkeypatch: pytest.MonkeyPatch, runs: dict[str, Path]) -> None:
    data = component_data(open_page(monkeypatch, runs["corrupt"], "compare"))
    cells = next(row for row in data["rows"] if row["id"] == "red_shoes-0")["cells"]
    assert cells["75"]["url"] is None
    assert "is not what was generated" in cells["75"]["reason"]
    assert cells["300"]["reason"] == ""


def test_a_link_to_a_picture_of_another_page_opens_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16, captions=7))
    data = component_data(open_page(monkeypatch, tmp_path, "compare", look="val_1006-0"))
    assert [row["id"] for row in data["rows"]][8:] == ["val_1006-0"]
    assert (data["page"], data["n_pages"]) == (1, 2)


def test_the_large_view_shows_the_nearest_training_photo_with_its_distance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = complete_run(tmp_path, Shape(steps=(75,), seeds=1, size_px=16, captions=0))
    photo = b"\x89PNG\r\n\x1a\n of a training photo"
    sha256 = hashlib.sha256(photo).hexdigest()
    write_bytes(root / "data" / "dataset" / "train" / "images" / "77.png", photo)
    record = CaptionRecord(
        image_id="77", split="train", file="train/images/77.png", caption="a <b>shoe", sha256=sha256,
        source_width_px=16, source_height_px=16, attributes={},
    )  # fmt: skip
    write_bytes(root / "data" / "dataset" / "train" / "captions.jsonl", f"{record.model_dump_json()}\n".encode())
    table = root / "metrics" / "per_image.csv"
    header, *lines = table.read_text().splitlines()
    ends = ["77,3.25,1.0", "78,4.5,0.0", *[",,"] * (len(lines) - 2)]
    rows = [f"{line},{end}" for line, end in zip(lines, ends, strict=True)]
    table.write_text("\n".join([f"{header},nearest_train,nearest_train_distance,memorised", *rows]) + "\n")
    row = component_data(open_page(monkeypatch, root, "compare"))["rows"][0]
    near, unknown = row["cells"]["base"]["nearest"], row["cells"]["75"]["nearest"]
    assert (near["id"], near["distance"], near["caption"]) == ("77", "3.25", "a <b>shoe")
    assert near["verdict"].endswith("is it a copy?")
    assert near["url"] == f"/img/{sha256}"
    assert store_of(root).sample_file(sha256).read_bytes() == photo, "the picture can be asked for"
    assert (unknown["id"], unknown["url"], unknown["verdict"]) == ("78", None, "no nearer than photos it never saw")
