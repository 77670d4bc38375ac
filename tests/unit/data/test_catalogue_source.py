"""Which rows of a catalogue become examples, and what they say."""

import pytest

from loupe.data.captions import parse_template
from loupe.data.catalogue_source import read_catalogue
from loupe.errors import PipelineError
from tests.unit.data.photo_files import product, row, write_csv, write_kaggle

TEMPLATE = parse_template("a photo of {colour} casual shoes, {season} collection, {brand} brand")


def read(root, article_type="Casual Shoes"):
    return read_catalogue(root, article_type=article_type, malformed_rows="repair", template=TEMPLATE)


def test_rows_of_other_article_types_are_left_out_and_the_files_order_is_kept(tmp_path):
    write_csv(tmp_path, [row("30"), row("4", article="Handbags"), row("200"), row("7")])
    (tmp_path / "images").mkdir()
    product(0).save(tmp_path / "images" / "7.jpg")
    listing = read(tmp_path)
    assert [item.image_id for item in listing.items] == ["30", "200", "7"]
    assert [item.photo is None for item in listing.items] == [True, True, False]
    assert listing.n_rows == 4


def test_attributes_and_caption_come_from_the_row_and_missing_ones_are_absent(tmp_path):
    name = "Puma Men's Basket White Green Shoe"
    write_csv(tmp_path, [row("1", colour="White", name=name, season="", usage="NA", year="2012.0")])
    (tmp_path / "images").mkdir()
    product(0).save(tmp_path / "images" / "1.jpg")
    (item,) = read(tmp_path).items
    assert item.attributes == {
        "article_type": "Casual Shoes",
        "colour": "White",
        "gender": "Men",
        "year": "2012",
        "brand": "Puma",
        "family": "puma basket green",
    }
    assert item.caption == "a photo of white casual shoes, Puma brand"


def test_an_unknown_article_type_names_the_nearest(tmp_path):
    write_csv(tmp_path, [row("1"), row("2", article="Handbags"), row("3", article="Formal Shoes")])
    with pytest.raises(PipelineError, match=r"'Casual Shoe'.*Casual Shoes, Formal Shoes"):
        read(tmp_path, article_type="Casual Shoe")


def test_duplicate_and_unsafe_ids_are_named_together(tmp_path):
    write_csv(tmp_path, [row("1"), row("2"), row("1"), row("../../x"), row("")])
    with pytest.raises(PipelineError) as caught:
        read(tmp_path)
    message = str(caught.value)
    assert "1: line 2, line 4" in message
    assert "line 5: id '../../x' cannot name a file" in message
    assert "line 6: id ''" in message
    assert "3 problems" in message


def test_a_duplicate_id_among_other_article_types_does_not_matter(tmp_path):
    write_kaggle(tmp_path, n=2)
    with (tmp_path / "styles.csv").open("a") as file:
        file.write(row("5", article="Handbags") + "\n" + row("5", article="Handbags") + "\n")
    assert len(read(tmp_path).items) == 2


def test_no_photo_at_all_is_an_error_and_so_is_a_missing_folder(tmp_path):
    write_csv(tmp_path, [row("1"), row("2")])
    with pytest.raises(PipelineError, match="images is not there"):
        read(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(PipelineError, match="none of the 2 photos"):
        read(tmp_path)
