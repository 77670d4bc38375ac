"""Every kind of photo people have becomes the same kind of square, or is refused for a stated reason."""

import random
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from loupe.data.images import MAX_PIXELS, UnusableImageError, encode_png, normalise
from tests.unit.data.photo_files import encoded, product, quartered

WHITE = (255, 255, 255)


def square(content, resolution=64):
    image = normalise(content, resolution=resolution).image
    assert (image.mode, image.size) == ("RGB", (resolution, resolution))
    return image


def refused(content):
    with pytest.raises(UnusableImageError) as caught:
        normalise(content, resolution=64)
    return caught.value.reason, caught.value.detail


def corners(image):
    last = image.width - 1
    return [image.getpixel(place) for place in ((0, 0), (last, 0), (0, last), (last, last))]


@pytest.mark.parametrize(("size", "box"), [((80, 40), (0, 16, 64, 48)), ((40, 80), (16, 0, 48, 64))])
def test_aspect_is_kept_and_the_photo_is_centred_on_white(size, box):
    image = square(encoded(Image.new("RGB", size, (10, 20, 30))))
    expected = Image.new("RGB", (64, 64), "white")
    expected.paste((10, 20, 30), box)
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_a_photo_of_the_right_size_keeps_its_pixels():
    photo = product(3, (64, 64))
    assert np.array_equal(np.asarray(square(encoded(photo))), np.asarray(photo))


def test_it_is_resized_once_with_lanczos():
    photo = product(3, (200, 200))
    expected = photo.resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(square(encoded(photo))), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(orientation):
    upright = quartered(64, 64)
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(inverse[orientation]) if orientation in inverse else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert corners(square(encoded(stored, exif=exif.tobytes()))) == corners(upright)


def test_the_reported_size_is_the_one_after_turning():
    exif = Image.Exif()
    exif[0x0112] = 6
    result = normalise(encoded(Image.new("RGB", (40, 20)), exif=exif.tobytes()), resolution=64)
    assert (result.source_width_px, result.source_height_px) == (20, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode):
    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 32, 64))
    if mode == "P":
        content = encoded(picture.convert("RGB").quantize(4), transparency=0)
        opaque = Image.open(BytesIO(content)).convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", (64, 64), "white"), opaque).convert("RGB")
        assert np.array_equal(np.asarray(square(content)), np.asarray(expected))
        assert square(content).getpixel((5, 5)) == WHITE
        return
    image = square(encoded(picture.convert(mode)))
    assert image.getpixel((5, 5)) == (0, 0, 0)
    assert image.getpixel((60, 5)) == WHITE


def test_half_transparency_is_mixed_with_white():
    image = square(encoded(Image.new("RGBA", (64, 64), (200, 0, 0, 128))))
    assert image.getpixel((30, 30)) == pytest.approx((227, 127, 127), abs=1)


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, axis=0)
    image = np.asarray(square(encoded(Image.fromarray(ramp))))[0, :, 0]
    assert np.array_equal(image, np.round(ramp[0] / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_and_black_and_white_become_rgb(mode):
    picture = Image.new("L", (64, 64), 255)
    picture.paste(0, (0, 0, 32, 64))
    image = square(encoded(picture.convert(mode)))
    assert (image.getpixel((5, 5)), image.getpixel((60, 5))) == ((0, 0, 0), WHITE)


def test_cmyk_is_converted_not_inverted():
    image = square(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=100))
    assert image.getpixel((30, 30)) == pytest.approx((255, 0, 0), abs=3)


def test_a_colour_profile_is_converted_to_srgb():
    """A linear-light profile: mid-grey 128 is much brighter in sRGB."""
    linear = _linear_profile()
    plain = encoded(Image.new("RGB", (64, 64), (128, 128, 128)))
    tagged = encoded(Image.new("RGB", (64, 64), (128, 128, 128)), icc_profile=linear)
    assert square(plain).getpixel((30, 30)) == (128, 128, 128)
    assert square(tagged).getpixel((30, 30)) == pytest.approx((188, 188, 188), abs=2)


def test_the_srgb_profile_itself_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = product(1, (64, 64))
    difference = np.abs(
        np.asarray(square(encoded(photo, icc_profile=srgb)), dtype=int) - np.asarray(square(encoded(photo)), dtype=int)
    )
    assert difference.max() <= 1


def test_a_profile_is_applied_under_transparency_and_on_a_palette():
    linear = _linear_profile()
    clear = Image.new("RGBA", (64, 64), (128, 128, 128, 255))
    clear.putpixel((0, 0), (0, 0, 0, 0))
    image = square(encoded(clear, icc_profile=linear))
    assert image.getpixel((30, 30)) == pytest.approx((188, 188, 188), abs=2)
    assert image.getpixel((0, 0)) == WHITE
    palette = Image.new("RGB", (64, 64), (128, 128, 128)).quantize(2)
    assert square(encoded(palette, icc_profile=linear)).getpixel((30, 30)) == pytest.approx((188, 188, 188), abs=2)


@pytest.mark.parametrize(
    "profile", [b"not a profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()]
)
def test_a_profile_that_cannot_be_applied_is_noted(profile):
    result = normalise(encoded(Image.new("RGB", (64, 64), (9, 9, 9)), icc_profile=profile), resolution=64)
    assert result.image.getpixel((30, 30)) == (9, 9, 9)
    assert "colour profile cannot be applied" in result.notes[0]


def test_an_ordinary_photo_has_no_notes():
    assert normalise(encoded(product(0)), resolution=64).notes == ()


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (10, 101)])
def test_extreme_shapes_are_refused(size):
    reason, detail = refused(encoded(Image.new("RGB", size)))
    assert reason == "extreme shape"
    assert f"{size[0]}x{size[1]}" in detail


def test_a_shape_at_the_limit_is_accepted():
    square(encoded(Image.new("RGB", (10, 100))))


def test_empty_foreign_and_truncated_files_are_refused_by_name():
    photo = encoded(product(0, (200, 200)), "JPEG")
    assert refused(b"")[0] == "empty file"
    assert refused(b"<html>404</html>")[0] == "corrupt"
    assert refused(photo[: len(photo) // 2])[0] == "truncated"
    assert refused(encoded(product(0, (200, 200)))[:-200])[0] in ("truncated", "corrupt")


def test_truncated_photos_stay_refused_after_another_library_switched_tolerance_on(monkeypatch):
    """Half a photo padded with grey must not become an example."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    photo = encoded(product(0, (200, 200)), "JPEG")
    assert refused(photo[: len(photo) // 2])[0] == "truncated"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_refused(kind):
    frames = [product(seed) for seed in range(3)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert refused(content) == ("animated", "3 frames; save the one that is meant")


def test_a_still_webp_is_read():
    square(encoded(product(0), "WEBP", lossless=True))


def test_a_decompression_bomb_is_refused_without_being_decoded():
    side = int(MAX_PIXELS**0.5) + 10
    header = PngImagePlugin._MAGIC + _png_chunk(b"IHDR", side.to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0]))
    assert refused(header + _png_chunk(b"IDAT", b"") + _png_chunk(b"IEND", b""))[0] == "too large"
    vast = PngImagePlugin._MAGIC + _png_chunk(b"IHDR", (2**30).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0]))
    assert refused(vast + _png_chunk(b"IDAT", b"") + _png_chunk(b"IEND", b""))[0] == "too large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_damaged_bytes_never_raise_anything_else(kind):
    whole = encoded(product(0), kind)
    rng = random.Random(7)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 12)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            square(bytes(damaged))
        except UnusableImageError as error:
            assert error.reason
            assert error.detail


def test_other_formats_are_refused_whatever_their_name_says():
    assert refused(encoded(product(0), "TIFF")) == ("corrupt", "not a JPEG, PNG or WebP image")


def test_a_phones_two_view_photo_is_its_first_view():
    first, second = product(0, (64, 64)), product(1, (64, 64))
    content = encoded(first, "MPO", save_all=True, append_images=[second], quality=100)
    to_first, to_second = (
        np.abs(np.asarray(square(content), dtype=int) - np.asarray(view, dtype=int)).mean() for view in (first, second)
    )
    assert to_first < 6
    assert to_second > 20


def test_equal_pixels_give_equal_png_bytes_without_metadata():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    one = encode_png(square(encoded(product(0), exif=exif.tobytes(), dpi=(300, 300))))
    assert one == encode_png(square(encoded(product(0))))
    assert Image.open(BytesIO(one)).info == {}


def _linear_profile():
    """An RGB profile with sRGB primaries and a linear curve, made from the sRGB one."""
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    n_tags = int.from_bytes(srgb[128:132])
    curve = b"curv" + bytes(4) + (0).to_bytes(4)  # no entries: identity
    for tag in range(n_tags):
        entry = 132 + 12 * tag
        if srgb[entry : entry + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            start = int.from_bytes(srgb[entry + 4 : entry + 8])
            srgb[start : start + len(curve)] = curve
            srgb[entry + 8 : entry + 12] = len(curve).to_bytes(4)
    return bytes(srgb)


def _png_chunk(name, content):
    import zlib

    return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)
