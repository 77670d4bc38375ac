"""The report shows the manifest's counts and names, safely, and its figures show the numbers."""

import re
import xml.etree.ElementTree as ET

from PIL import Image

from loupe.data.figures import grouped_bars, histogram
from loupe.data.report import write_report
from loupe.records import CaptionRecord, DatasetManifest, Finding, MalformedRow, Rejection
from tests.unit.data.photo_files import product

SPLITS = {"train": 4, "val": 2, "test": 2}


def report(folder, **changes):
    records = []
    for split, n in SPLITS.items():
        for i in range(n):
            name = f"{split}{i}"
            file = folder / split / "images" / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            product(i, (64, 64)).save(file)
            attributes = changes.get("attributes", {"colour": ("Black", "White")[i % 2], "year": "2012"})
            fields = {"caption": "x", "sha256": "0", "source_width_px": 100 + i, "source_height_px": 80}
            path = f"{split}/images/{name}.png"
            records.append(CaptionRecord(image_id=name, split=split, file=path, attributes=attributes, **fields))
    manifest = DatasetManifest(
        source="kaggle-fashion",
        resolution_px=64,
        seed=1,
        n_rows=50,
        n_selected=12,
        n_missing=2,
        missing_ids=("m1", "m2"),
        n_examples=SPLITS,
        malformed_rows=(MalformedRow(line=7, n_cells=11, image_id="9", action="repaired"),),
        rejected=(Rejection(image_id="<b>bad</b>", reason="truncated", detail="at & byte 3"),),
        findings=changes.get("findings", ()),
        attribute_counts={},
        captions_sha256=dict.fromkeys(SPLITS, "0"),
    )
    write_report(folder, manifest, records, max_rejected_share=0.05)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_everything_left_out_is_named_with_its_reason_and_nothing_is_markup(tmp_path):
    page = report(tmp_path)
    assert "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "<b>bad</b>" not in page
    assert "at &amp; byte 3" in page
    assert "m1, m2" in page
    assert "repaired" in page
    assert "1 of 9 (limit 5.0%)" in page


def test_every_picture_the_page_shows_is_there(tmp_path):
    findings = (Finding(kind="near-duplicate", image_ids=("train0", "val0"), detail="train and val"),)
    page = report(tmp_path, findings=findings)
    sources = re.findall(r'src="([^"]+)"', page)
    assert {
        f"figures/{name}" for name in ("samples.png", "colour.svg", "year.svg", "size.svg", "near_duplicates.png")
    } == set(sources)
    assert all((tmp_path / source).stat().st_size > 0 for source in sources)
    with Image.open(tmp_path / "figures" / "samples.png") as sheet:
        assert sheet.size == (4 * 112, 3 * 112)


def test_a_source_without_attributes_has_a_report_too(tmp_path):
    page = report(tmp_path, attributes={})
    assert set(re.findall(r'src="([^"]+)"', page)) == {"figures/samples.png", "figures/size.svg"}


def test_the_same_dataset_gives_the_same_bytes(tmp_path):
    pages = [report(tmp_path / name) for name in ("a", "b")]
    assert pages[0] == pages[1]
    figures = [sorted((tmp_path / name / "figures").iterdir()) for name in ("a", "b")]
    assert [f.read_bytes() for f in figures[0]] == [f.read_bytes() for f in figures[1]]


def test_bars_are_as_long_as_their_shares():
    svg = grouped_bars(["<Black>", "White"], {"train": [0.5, 0.25], "val": [1.0, 0.0]}, title="A & B")
    root = ET.fromstring(svg)
    widths = [float(e.get("width")) for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("height") == "13"]
    assert widths == [210.0, 420.0, 105.0, 0.0]
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<Black>", "50.0%", "100.0%", "0.0%"} <= set(texts)


def test_a_histogram_counts_every_value_once():
    svg = histogram([10, 10, 11, 30], title="size", unit="px", n_bins=4)
    texts = [e.text for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1:] == ["10–15 px", "3", "16–21 px", "0", "22–27 px", "0", "28–33 px", "1"]


def test_a_histogram_of_one_size_has_one_bar():
    texts = [e.text for e in ET.fromstring(histogram([224] * 5, title="t", unit="px")).iter() if (e.text or "").strip()]
    assert texts == ["t", "t", "224 px", "5"]
