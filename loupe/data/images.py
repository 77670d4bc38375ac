"""One photo, whatever it came as, to a square RGB picture on white. It neither lists nor writes files."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_ASPECT = 10.0
"""A photo longer than this times its width would be a thin line on white."""
MAX_PIXELS = 89_478_485
"""Pillow's own limit against decompression bombs (a quarter of a gigabyte of RGB)."""
_WHITE = (255, 255, 255, 255)
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_INTEGER_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")


class UnusableImageError(Exception):
    """A photo that cannot become an example; `reason` is one of a few words, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class NormalisedImage:
    """A square RGB picture and what is worth knowing about its source."""

    image: Image.Image
    source_width_px: int
    source_height_px: int
    """After the camera's orientation was applied."""
    notes: tuple[str, ...]
    """Plain sentences about what could not be honoured, e.g. an unreadable colour profile."""


def normalise(content: bytes, *, resolution: int) -> NormalisedImage:
    """Decode an image file's bytes into an RGB square of `resolution` px, aspect kept, centred on white.

    The camera's orientation and the colour profile are applied, transparency is laid on white, and the picture is
    resized once with Lanczos. Raises UnusableImageError.
    """
    if not content:
        raise UnusableImageError("empty file", "0 bytes; copy or download the photo again")
    decoded = _decode(content)
    width, height = decoded.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnusableImageError("extreme shape", f"{width}x{height} px is longer than {MAX_ASPECT:g}:1; crop it")
    colour, notes = _to_srgb(_to_eight_bits(decoded))
    opaque = _on_white(colour)
    return NormalisedImage(
        image=_square(opaque, resolution), source_width_px=width, source_height_px=height, notes=notes
    )


def encode_png(image: Image.Image) -> bytes:
    """Return the picture as PNG without metadata: the same pixels give the same bytes."""
    buffer = BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def _decode(content: bytes) -> Image.Image:
    # Another library may have switched this on; half a photo padded with grey must never become an example.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        _refuse_by_header(image)
        image.load()
        return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise UnusableImageError("corrupt", "not a JPEG, PNG or WebP image") from None
    except Image.DecompressionBombError:
        raise UnusableImageError("too large", f"more than {MAX_PIXELS} pixels; make it smaller") from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        # What these four decoders raise for broken bytes. Only the message tells a file that ends early from a broken
        # one.
        message = str(error) or type(error).__name__
        ends_early = "truncated" in message.lower() or "unexpected end" in message.lower()
        raise UnusableImageError("truncated" if ends_early else "corrupt", message) from None


def _refuse_by_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImageError("too large", f"{width}x{height} px is more than {MAX_PIXELS} pixels; make it smaller")
    # Phones store a second view in MPO files; their first frame is the photo.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UnusableImageError("animated", f"{image.n_frames} frames; save the one that is meant")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit greys to 8 bits; Pillow's own conversion clips everything above 255 to white."""
    if image.mode in _EIGHT_BIT_MODES:
        return image
    values = np.asarray(image)
    if image.mode not in _INTEGER_MODES or values.min() < 0 or values.max() > 65535:
        raise UnusableImageError("unsupported pixels", f"Pillow mode {image.mode}; save it as 8-bit RGB or grey")
    eight = np.round(values.astype(np.float64) / 257).astype(np.uint8)
    scaled = Image.fromarray(eight)
    if "icc_profile" in image.info:
        scaled.info["icc_profile"] = image.info["icc_profile"]
    return scaled


def _to_srgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Return the picture as RGB or RGBA in sRGB. A profile that cannot be applied is left aside and noted."""
    icc = image.info.get("icc_profile")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    # A palette or transparency hides the colours' own mode from the colour engine.
    image = image if image.mode in ("L", "RGB", "CMYK") else image.convert("L" if image.mode in ("1", "LA") else "RGB")
    notes: tuple[str, ...] = ()
    if icc:
        try:
            image = _apply_profile(image, icc)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            notes = (f"its colour profile cannot be applied ({error}); its numbers are taken as sRGB",)
    rgb = image.convert("RGB")
    if alpha is not None:
        rgb.putalpha(alpha)
    return rgb, notes


def _apply_profile(image: Image.Image, icc: bytes) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(BytesIO(icc))
    space = profile.profile.xcolor_space.strip()
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    if mode is None or (mode != image.mode and (mode != "RGB" or image.mode == "CMYK")):
        raise ValueError(f"it is for {space}, the picture is {image.mode}")
    return ImageCms.profileToProfile(
        image.convert(mode),
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")


def _square(image: Image.Image, resolution: int) -> Image.Image:
    scale = resolution / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (resolution, resolution), _WHITE[:3])
    square.paste(image, ((resolution - width) // 2, (resolution - height) // 2))
    return square
