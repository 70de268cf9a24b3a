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


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


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


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), RED)
    exif = image.getexif()
    exif[0x0112] = 6
    assert read_image(saved(tmp_path / "a.jpg", image, exif=exif)).shape == (40, 20, 3)


def test_the_first_frame_of_an_animation_with_a_warning(tmp_path):
    frames = [Image.new("RGB", (12, 12), colour) for colour in (RED, "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    heard: list[str] = []
    assert near(read_image(path, heard.append)[0, 0], RED, 8)
    assert len(heard) == 1 and "2 frames" in heard[0]


def test_what_is_no_image(tmp_path):
    text, empty = tmp_path / "a.png", tmp_path / "empty.jpg"
    text.write_text("hello")
    empty.write_bytes(b"")
    assert "not an image" in refused(text)
    assert "not an image" in refused(empty)
    assert "no such image" in refused(tmp_path / "missing.png")
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
