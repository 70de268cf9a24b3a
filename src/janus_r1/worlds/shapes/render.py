"""Scene -> pixels. Masks are drawn once, large, and scaled down, so that edges are smooth."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from janus_r1.worlds.shapes.scene import BACKGROUNDS, COLOURS, IMAGE_SIZE, SIZES, Scene

SUPERSAMPLE = 16


def _polygon(shape: str) -> list[tuple[float, float]]:
    """Corner points in the unit square, y downwards."""
    if shape == "square":
        return [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)]
    if shape == "triangle":
        return [(0.5, 0.02), (1.0, 0.96), (0.0, 0.96)]
    if shape == "diamond":
        return [(0.5, 0.0), (0.92, 0.5), (0.5, 1.0), (0.08, 0.5)]
    if shape == "cross":
        a, b = 0.33, 0.67
        return [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b), (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a)]
    if shape == "star":
        points = []
        for k in range(10):
            radius = 0.53 if k % 2 == 0 else 0.22
            angle = math.pi * k / 5 - math.pi / 2
            points.append((0.5 + radius * math.cos(angle), 0.53 + radius * math.sin(angle)))
        return points
    if shape == "heart":
        points = []
        for k in range(120):
            t = 2 * math.pi * k / 120
            x = 16 * math.sin(t) ** 3
            y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
            points.append((0.5 + x / 33, 0.46 - y / 31))
        return points
    raise ValueError(f"unknown shape {shape!r}")


@cache
def shape_mask(shape: str, side: int) -> np.ndarray:
    """Coverage of ``shape`` in a square of ``side`` pixels: float32 [side, side] in [0, 1]."""
    large = side * SUPERSAMPLE
    canvas = Image.new("L", (large, large), 0)
    draw = ImageDraw.Draw(canvas)
    if shape in ("circle", "ring"):
        draw.ellipse((0.02 * large, 0.02 * large, 0.98 * large, 0.98 * large), fill=255)
        if shape == "ring":
            draw.ellipse((0.24 * large, 0.24 * large, 0.76 * large, 0.76 * large), fill=0)
    else:
        draw.polygon([(x * large, y * large) for x, y in _polygon(shape)], fill=255)
    small = canvas.resize((side, side), Image.Resampling.BOX)
    mask = np.asarray(small, dtype=np.float32) / 255
    mask.setflags(write=False)
    return mask


def render(scene: Scene) -> np.ndarray:
    """Pixels of a scene: uint8 [64, 64, 3]."""
    pixels = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.float32)
    pixels[:] = BACKGROUNDS[scene.background]
    for item in scene.objects:
        alpha = shape_mask(item.shape, SIZES[item.size])[..., None]
        region = pixels[item.y : item.y + item.side, item.x : item.x + item.side]
        region += alpha * (np.asarray(COLOURS[item.colour], dtype=np.float32) - region)
    return np.round(pixels).astype(np.uint8)
