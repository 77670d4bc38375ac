"""A person's own files: captions taken as they are, everything that does not fit named at once."""

import json

import pytest

from loupe.data.file_sources import read_captions_json, read_pairs
from loupe.errors import PipelineError
from tests.unit.data.photo_files import product, write_pairs


def write_images(root, *names):
    (root / "images").mkdir(parents=True)
    for seed, name in enumerate(names):
        product(seed).save(root / "images" / name)


def write_captions(root, document):
    (root / "captions.json").write_text(json.dumps(document), encoding="utf-8")


def test_pairs_are_listed_by_id_with_their_captions_as_they_are(tmp_path):
    write_pairs(tmp_path, n=3)
    product(9).save(tmp_path / "abc.webp")
    (tmp_path / "abc.txt").write_bytes("\ufeffein Schuh, größer {colour}\r\n".encode())
    listing = read_pairs(tmp_path)
    assert [item.image_id for item in listing.items] == ["000", "001", "002", "abc"]
    assert listing.items[3].caption == "ein Schuh, größer {colour}"
    assert listing.items[3].photo == tmp_path / "abc.webp"
    assert (listing.n_rows, listing.items[0].attributes) == (4, {})


def test_orphans_of_both_kinds_bad_bytes_and_doubled_ids_are_named_at_once(tmp_path):
    write_pairs(tmp_path, n=4)
    (tmp_path / "000.txt").unlink()
    (tmp_path / "001.png").unlink()
    (tmp_path / "002.txt").write_bytes(b"caf\xe9")
    product(8).save(tmp_path / "003.jpg")
    with pytest.raises(PipelineError) as caught:
        read_pairs(tmp_path)
    message = str(caught.value)
    assert "000.png has no caption; write 000.txt" in message
    assert "001.txt has no image; add 001.png" in message
    assert "002.txt is not UTF-8: byte 3 is 0xe9" in message
    assert "one id for more than one image: 003: 003.jpg, 003.png" in message
    assert "4 problems" in message


def test_ids_that_differ_only_in_case_collide(tmp_path):
    for name in ("Shoe.png", "shoe.jpg"):
        product(0).save(tmp_path / name)
    for name in ("Shoe.txt", "shoe.txt"):
        (tmp_path / name).write_text("a shoe")
    with pytest.raises(PipelineError, match="one id for more than one image"):
        read_pairs(tmp_path)


def test_a_long_list_of_problems_is_cut_with_the_number_left_out(tmp_path):
    write_pairs(tmp_path, n=27)
    for text in tmp_path.glob("*.txt"):
        text.unlink()
    with pytest.raises(PipelineError) as caught:
        read_pairs(tmp_path)
    assert "and 7 more" in str(caught.value)
    assert str(caught.value).count("has no caption") == 20


def test_hidden_files_beside_the_photos_are_ignored(tmp_path):
    write_pairs(tmp_path, n=2)
    (tmp_path / "._000.png").write_bytes(b"resource fork")
    assert len(read_pairs(tmp_path).items) == 2


@pytest.mark.parametrize("read", [read_pairs, read_captions_json])
def test_a_folder_that_is_not_there_or_holds_no_image_says_so(tmp_path, read):
    with pytest.raises(PipelineError, match="is not there"):
        read(tmp_path / "nowhere")
    if read is read_captions_json:
        (tmp_path / "images").mkdir()
        write_captions(tmp_path, {})
    with pytest.raises(PipelineError, match="holds no image"):
        read(tmp_path)


@pytest.mark.parametrize(
    "document",
    [
        {"b.png": "two", "images/a.jpg": "one"},
        [{"file": "a.jpg", "caption": "one"}, {"file": "b.png", "caption": "two"}],
        [{"file_name": "b.png", "text": "two"}, {"image": "a.jpg", "caption": "one"}],
    ],
)
def test_every_form_of_captions_json_gives_the_same_listing(tmp_path, document):
    write_images(tmp_path, "a.jpg", "b.png")
    write_captions(tmp_path, document)
    listing = read_captions_json(tmp_path)
    assert [(item.image_id, item.caption, item.photo.name) for item in listing.items] == [
        ("a", "one", "a.jpg"),
        ("b", "two", "b.png"),
    ]


def test_a_byte_order_mark_is_tolerated(tmp_path):
    write_images(tmp_path, "a.png")
    (tmp_path / "captions.json").write_bytes(b"\xef\xbb\xbf" + b'{"a.png": "one"}')
    assert read_captions_json(tmp_path).items[0].caption == "one"


def test_what_stands_alone_or_is_no_caption_is_named_at_once(tmp_path):
    write_images(tmp_path, "a.png", "b.png", "c.png", "c.jpg")
    entries = [
        {"file": "a.png", "caption": "one"},
        {"file": "a.png", "caption": "again"},
        {"file": "gone.png", "caption": "x"},
        {"file": "c.png", "caption": 3},
        {"file": "../../secret.png", "caption": "x"},
        "b.png",
    ]
    write_captions(tmp_path, entries)
    with pytest.raises(PipelineError) as caught:
        read_captions_json(tmp_path)
    message = str(caught.value)
    assert "names one file more than once: a.png: entry 1, entry 2" in message
    assert "names 'gone.png', which is no image in images/" in message
    assert "entry 4: expected a file name and a caption" in message
    assert "entry 5: '../../secret.png' must be the plain name" in message
    assert "entry 6: expected a file name and a caption" in message
    assert "images/b.png has no caption" in message
    assert "one id for more than one image: c: c.jpg, c.png" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a.png": "one",}', "line 1, column"),
        (b'{"a.png": "one", "a.png": "two"}', "more than one caption for a.png"),
        (b'"a.png"', "found a str"),
        (b'{"a.png": "\xff"}', "captions.json is not UTF-8: byte 11 is 0xff"),
    ],
)
def test_an_unusable_captions_json_names_the_place(tmp_path, content, said):
    write_images(tmp_path, "a.png")
    (tmp_path / "captions.json").write_bytes(content)
    with pytest.raises(PipelineError, match=said):
        read_captions_json(tmp_path)
