"""styles.csv as people have it: unquoted commas, byte-order marks, missing columns, nothing at all."""

import pytest

from loupe.data.csv_rows import read_csv_rows
from loupe.errors import PipelineError
from tests.unit.data.photo_files import HEADER, row, write_csv


def read(root, **options):
    return read_csv_rows(root / "styles.csv", **{"malformed_rows": "repair", **options})


def test_an_unquoted_comma_in_the_name_is_repaired_to_the_exact_text(tmp_path):
    write_csv(tmp_path, [row("1"), row("2", name="Newfeel Unisex White, Blue and Orange Casual Shoes"), row("3")])
    table = read(tmp_path)
    assert [r.cells["id"] for r in table.rows] == ["1", "2", "3"]
    assert table.rows[1].cells["productDisplayName"] == "Newfeel Unisex White, Blue and Orange Casual Shoes"
    (malformed,) = table.malformed_rows
    assert (malformed.line, malformed.n_cells, malformed.image_id, malformed.action) == (3, 11, "2", "repaired")


def test_skip_leaves_the_malformed_row_out_and_still_counts_and_lists_it(tmp_path):
    write_csv(tmp_path, [row("1"), row("2", name="a, b, c"), row("3")])
    table = read(tmp_path, malformed_rows="skip")
    assert [r.cells["id"] for r in table.rows] == ["1", "3"]
    assert table.n_rows == 3
    assert [(m.n_cells, m.action) for m in table.malformed_rows] == [(12, "skipped")]


def test_a_row_with_too_few_cells_is_skipped_even_when_repairing(tmp_path):
    write_csv(tmp_path, [row("1"), "2,Men,Footwear"])
    table = read(tmp_path)
    assert [r.cells["id"] for r in table.rows] == ["1"]
    assert [(m.image_id, m.n_cells, m.action) for m in table.malformed_rows] == [("2", 3, "skipped")]


def test_quotes_byte_order_mark_windows_line_ends_and_blank_lines_are_understood(tmp_path):
    quoted = row("1", name='"Puma Men, the ""Basket"" shoe"')
    text = "\ufeff" + "\r\n".join([HEADER, quoted, "", row("2"), ""])
    (tmp_path / "styles.csv").write_bytes(text.encode("utf-8"))
    table = read(tmp_path)
    assert [r.cells["id"] for r in table.rows] == ["1", "2"]
    assert table.rows[0].cells["productDisplayName"] == 'Puma Men, the "Basket" shoe'
    assert table.malformed_rows == ()


def test_rare_line_separators_inside_a_name_do_not_end_the_row(tmp_path):
    write_csv(tmp_path, [row("1", name="Puma\u2028Men \x85 Shoe\x0c"), row("2")])
    table = read(tmp_path)
    assert [r.cells["id"] for r in table.rows] == ["1", "2"]
    assert table.malformed_rows == ()


def test_missing_values_are_empty(tmp_path):
    write_csv(tmp_path, [row("1", colour="NA", season="")])
    cells = read(tmp_path).rows[0].cells
    assert (cells["baseColour"], cells["season"], cells["gender"]) == ("", "", "Men")


def test_missing_columns_are_named_all_at_once_with_the_nearest_found(tmp_path):
    header = HEADER.replace("baseColour", "basecolor").replace("season", "when")
    write_csv(tmp_path, [row("1")], header=header)
    with pytest.raises(PipelineError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert "no column baseColour; is basecolor meant?" in message
    assert "no column season" in message
    assert "no column gender" not in message


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    write_csv(tmp_path, [row("1") + ",1"], header=HEADER + ",id")
    with pytest.raises(PipelineError, match="column id is there twice"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there. Expected a folder with styles.csv"),
        (b"", "is empty"),
        (b"\n  \n", "is empty"),
        (HEADER.encode(), "no usable row"),
        (HEADER.encode() + b"\n1,M\xe9n\n", "line 2 is not UTF-8"),
        (b"<html>not found</html>", "no column id"),
        (HEADER.encode() + b"\n" + b'"' + b"x" * 200_000, "quotation mark"),
    ],
)
def test_an_unusable_file_is_one_clear_error(tmp_path, content, said):
    if content is not None:
        (tmp_path / "styles.csv").write_bytes(content)
    with pytest.raises(PipelineError, match=said):
        read(tmp_path)
