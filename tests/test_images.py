"""Reading users' images: every mode becomes RGB, everything bad becomes one line."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from janus_r1.errors import UserError
from janus_r1.images import load_image, read_image, square

RED = (204, 51, 0)  # in the web palette, so that a palette image can hold it


def saved(path, image, **options):
    image.save(path, **options)
    return path


PNG_START = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG_START + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def deep_png(width: int, height: int, colour: tuple[int, ...]) -> bytes:
    """A PNG of one colour with 16 bits a channel, which Pillow cannot write."""
    row = b"\0" + struct.pack(">3H", *colour) * width
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        read_image(path)
    text = str(caught.value)
    assert "\n" not in text and path.name in text
    return text


def near(pixel, colour, tolerance=3) -> bool:
    return bool(np.abs(pixel.astype(int) - np.array(colour)).max() <= tolerance)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_modes_keep_the_colour(tmp_path, mode):
    path = saved(tmp_path / "a.tiff", Image.new("RGB", (20, 10), RED).convert(mode))
    pixels = read_image(path)
    assert pixels.shape == (10, 20, 3) and pixels.dtype == np.uint8
    assert near(pixels[5, 5], RED)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey(tmp_path, mode):
    pixels = read_image(saved(tmp_path / "a.png", Image.new("L", (9, 9), 255).convert(mode)))
    assert (pixels == 255).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.full((16, 16), 0x8000, dtype=np.uint16)
    assert near(read_image(saved(tmp_path / "a.png", Image.fromarray(values)))[0, 0], (127, 127, 127))


def test_transparency_lies_over_white(tmp_path):
    clear = saved(tmp_path / "a.png", Image.new("RGBA", (9, 9), (*RED, 0)))
    assert near(read_image(clear)[0, 0], (255, 255, 255), 0)
    palette = Image.new("P", (9, 9), 0)
    palette.putpalette([*RED, 0, 0, 0])
    assert near(read_image(saved(tmp_path / "b.png", palette, transparency=0))[0, 0], (255, 255, 255), 0)


def test_sixteen_bits_a_channel(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(deep_png(9, 9, tuple(value * 257 for value in RED)))
    assert near(read_image(path)[4, 4], RED)


def test_cmyk_photographs_are_not_inverted(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (32, 32), RED).convert("CMYK"), quality=95)
    assert near(read_image(path)[16, 16], RED, 8)


def test_palettes_with_partial_transparency(tmp_path):
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 0, 0, 0])
    half = saved(tmp_path / "a.png", image, transparency=bytes([255, 128]))
    assert near(read_image(half)[4, 4], (127, 127, 127))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_and_mirrors_upright(tmp_path, orientation):
    """Stored as a camera would, the red upper left quarter comes back to the upper left."""
    upright = Image.new("RGB", (32, 16), "blue")
    upright.paste(RED, (0, 0, 16, 8))
    stored = upright if orientation == 1 else upright.transpose(STORED[orientation])
    exif = stored.getexif()
    exif[0x0112] = orientation
    pixels = read_image(saved(tmp_path / "a.png", stored, exif=exif))
    assert (pixels == np.asarray(upright)).all()


# What undoes each Exif orientation is Pillow's business; what makes it is stated here.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), RED)
    exif = image.getexif()
    exif[0x0112] = 6
    assert read_image(saved(tmp_path / "a.jpg", image, exif=exif)).shape == (40, 20, 3)


@pytest.mark.parametrize("form", ["gif", "png", "webp"])
def test_the_first_frame_of_an_animation_with_a_warning(tmp_path, form):
    frames = [Image.new("RGB", (12, 12), colour) for colour in (RED, "blue")]
    path = saved(tmp_path / f"a.{form}", frames[0], save_all=True, append_images=frames[1:])
    heard: list[str] = []
    assert near(read_image(path, heard.append)[0, 0], RED, 8)
    assert len(heard) == 1 and "2 frames" in heard[0]


def test_what_is_no_image(tmp_path):
    text, empty = tmp_path / "a.png", tmp_path / "empty.jpg"
    text.write_text("hello")
    empty.write_bytes(b"")
    assert "not an image" in refused(text)
    assert "not an image" in refused(empty)
    assert "no such file" in refused(tmp_path / "missing.png")
    assert "folder" in refused(tmp_path)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files(tmp_path, form):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, form)
    path = tmp_path / "cut.bin"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    refused(path)


@pytest.mark.parametrize(("width", "height"), [(50_000, 1), (50_000, 50_000), (10_000, 10_000), (3, 400)])
def test_sizes_are_refused_from_the_header(tmp_path, width, height):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(width, height))
    assert "too large" in refused(path) if width > 3 else "too small" in refused(path)


def test_square_pads_with_grey():
    wide = np.full((50, 100, 3), RED, dtype=np.uint8)
    pixels = square(wide, 64)
    assert pixels.shape == (64, 64, 3)
    assert tuple(pixels[0, 0]) == (127, 127, 127) and near(pixels[32, 32], RED)
    same = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert (square(same, 64) == same).all()


def test_load_image_gives_the_models_size(tmp_path):
    assert load_image(saved(tmp_path / "a.png", Image.new("RGB", (300, 9), RED)), 64).shape == (64, 64, 3)


def test_any_size_becomes_the_models(tmp_path):
    """A tall photograph is fitted, its sides are grey, and small pictures are enlarged."""
    tall = load_image(saved(tmp_path / "a.png", Image.new("RGB", (600, 1200), RED)), 64)
    assert near(tall[32, 32], RED) and near(tall[32, 0], (127, 127, 127), 0) and near(tall[0, 32], RED)
    small = load_image(saved(tmp_path / "b.png", Image.new("RGB", (8, 8), RED)), 64)
    assert small.shape == (64, 64, 3) and near(small[0, 0], RED) and near(small[63, 63], RED)


def test_eps_is_refused_before_ghostscript_could_start(tmp_path, monkeypatch):
    def started(*args, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n")
    assert "not an image" in refused(path)
