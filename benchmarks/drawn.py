"""Pictures that are no chest film, drawn here, so that they need no file: pages, screens, charts, codes, noise, phantoms.

uint8, [rows, columns] grey or [rows, columns, 3] blue-green-red, as OpenCV has it. Seeded: the same every time.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, cv2.FONT_HERSHEY_PLAIN)
WORDS = (
    "the",
    "film",
    "of",
    "this",
    "patient",
    "was",
    "taken",
    "on",
    "a",
    "mobile",
    "unit",
    "in",
    "bed",
    "see",
    "the",
    "letter",
)


def drawn() -> Iterator[tuple[str, Picture]]:
    """Name and picture, one after another."""
    for kind in (flat, gradients, noise, patterns, pages, forms, codes, charts, screens, colours, phantoms):
        for number, picture in enumerate(kind()):
            yield f"{kind.__name__}-{number}", np.clip(picture, 0, 255).astype(np.uint8)


def flat() -> Iterator[NDArray[Any]]:
    """Black, white, grey, and each with a little noise on it."""
    for level in (0, 30, 128, 255):
        yield np.full((400, 400), level)
        yield level + np.random.default_rng(level).normal(0, 6, (400, 400))


def gradients() -> Iterator[NDArray[Any]]:
    rows, columns = np.mgrid[-1:1:400j, -1:1:400j]
    radius = np.hypot(rows, columns)
    for shape in (
        rows,
        columns,
        rows + columns,
        2 * radius - 1,
        1 - 2 * radius,
        np.sin(3 * columns),
        np.cos(4 * radius),
    ):
        yield 127 + 120 * np.asarray(shape)


def noise() -> Iterator[NDArray[Any]]:
    """White noise, noise of several grain sizes, and clouds (a 1/f spectrum, as photographs and films have it)."""
    for number in range(3):
        yield np.random.default_rng(number).integers(0, 256, (300, 300))
    for number, grain in enumerate((4, 8, 16, 32, 64)):
        small = np.random.default_rng(10 + number).integers(0, 256, (grain, grain)).astype(np.uint8)
        yield cv2.resize(small, (320, 320), interpolation=cv2.INTER_NEAREST)
        yield cv2.resize(small, (320, 320), interpolation=cv2.INTER_CUBIC)
    for number in range(6):
        rng = np.random.default_rng(20 + number)
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(320), np.fft.fftfreq(320)))
        spectrum = np.fft.fft2(rng.normal(size=(320, 320))) / np.maximum(frequency, 1 / 320) ** (0.8 + 0.2 * number)
        cloud = np.real(np.fft.ifft2(spectrum))
        yield 128 + 50 * (cloud - cloud.mean()) / cloud.std()


def patterns() -> Iterator[NDArray[Any]]:
    rows, columns = np.mgrid[0:400, 0:400]
    for width in (8, 25, 60):
        yield 255 * ((rows // width + columns // width) % 2)
        yield 255 * (columns // width % 2)
    disc = np.hypot(rows - 200, columns - 200) < 140
    yield 255 * disc
    yield 255 * ~disc
    for seed in range(4):
        yield _shapes(seed)


def pages() -> Iterator[NDArray[Any]]:
    """Typed pages, black on white and white on black, in several fonts and sizes."""
    for number in range(16):
        rng = np.random.default_rng(number)
        page = np.full((700, 500) if number % 3 else (500, 700), 255, np.uint8)
        size = 0.4 + 0.25 * (number % 4)
        for baseline in range(40, page.shape[0] - 20, int(45 * size) + 4):
            line = " ".join(rng.choice(WORDS, 14))
            cv2.putText(page, line, (30, baseline), FONTS[number % len(FONTS)], size, 0, 1, cv2.LINE_AA)
        page[:, -25:] = 255
        yield 255 - page if number % 5 == 4 else page


def forms() -> Iterator[NDArray[Any]]:
    """Ruled tables with a few words, as a referral letter or a ward list has them."""
    for number in range(8):
        rng = np.random.default_rng(number)
        page = np.full((600, 450), 250 - 5 * number, np.uint8)
        for top in range(60, 560, 30 + 5 * number):
            cv2.line(page, (20, top), (430, top), 60, 1)
            cv2.putText(page, " ".join(rng.choice(WORDS, 3)), (28, top - 8), FONTS[0], 0.45, 20, 1, cv2.LINE_AA)
        for left in (20, 200, 320, 430):
            cv2.line(page, (left, 60), (left, 560), 60, 1)
        yield page


def codes() -> Iterator[NDArray[Any]]:
    """QR codes and bar codes."""
    for number in range(5):
        small = cv2.QRCodeEncoder.create().encode(" ".join(WORDS[: 3 + 4 * number]))
        yield cv2.resize(small, (360, 360), interpolation=cv2.INTER_NEAREST)
    for number in range(4):
        bars = np.random.default_rng(number).integers(0, 2, 90)
        yield 255 * np.tile(np.repeat(bars, 4), (200 + 60 * number, 1))


def charts() -> Iterator[NDArray[Any]]:
    """Bars, lines, and heart-rate traces on millimetre paper."""
    for number in range(5):
        rng, page = np.random.default_rng(number), np.full((400, 550), 255, np.uint8)
        for place, height in enumerate(rng.integers(40, 320, 8)):
            cv2.rectangle(page, (50 + 60 * place, 360 - int(height)), (90 + 60 * place, 360), 60 + 20 * place, -1)
        cv2.line(page, (30, 360), (530, 360), 0, 2)
        yield page
    for number in range(5):
        page = np.full((400, 600), 240, np.uint8)
        page[::10], page[:, ::10] = 205, 205
        x = np.arange(600)
        for lead in range(4):
            beat = np.exp(-(((x + 13 * number) % 90 - 45) ** 2) / 12) * (55 - 10 * lead)
            y = 80 + 90 * lead - beat + 3 * np.sin(x / (9 + number))
            cv2.polylines(page, [np.stack([x, y], 1).astype(np.int32)], False, 10, 2, cv2.LINE_AA)
        yield page


def screens() -> Iterator[NDArray[Any]]:
    """Windows of programs with title bar, menu, list and buttons, in colour and in grey, light and dark."""
    for number in range(10):
        rng = np.random.default_rng(number)
        light = number % 2 == 0
        page = np.full((480, 720, 3), 235 if light else 35, np.uint8)
        ink = (20, 20, 20) if light else (230, 230, 230)
        tint = tuple(int(part) for part in rng.integers(40, 220, 3))
        cv2.rectangle(page, (0, 0), (720, 34), tint, -1)
        cv2.rectangle(page, (0, 34), (150, 480), tuple(part // 2 for part in tint), -1)
        for row in range(12):
            text = " ".join(rng.choice(WORDS, 6))
            cv2.putText(page, text, (165, 70 + 32 * row), FONTS[0], 0.5, ink, 1, cv2.LINE_AA)
            cv2.rectangle(page, (10, 52 + 32 * row), (140, 74 + 32 * row), tint, 1)
        cv2.rectangle(page, (560, 430), (700, 465), tint, -1)
        yield page if number < 6 else cv2.cvtColor(page, cv2.COLOR_BGR2GRAY)


def colours() -> Iterator[NDArray[Any]]:
    """Flat colours, colour ramps, colour noise, coloured shapes."""
    for number in range(4):
        yield np.full((300, 300, 3), np.random.default_rng(number).integers(0, 256, 3))
    rows, columns = np.mgrid[0:255:300j, 0:255:300j]
    yield np.stack([rows, columns, 255 - rows], 2)
    yield np.stack([columns, np.full_like(rows, 90), rows], 2)
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 256, (8 << number, 8 << number, 3)).astype(np.uint8)
        yield cv2.resize(small, (320, 320), interpolation=cv2.INTER_CUBIC)
    for seed in range(3):
        yield cv2.applyColorMap(_shapes(seed), cv2.COLORMAP_JET)


def phantoms() -> Iterator[NDArray[Any]]:
    """Round slices, sector scans and a child's drawing of two lungs: the layout of a medical picture, and none."""
    for number in range(6):
        page = np.zeros((400, 400), np.uint8)
        cv2.ellipse(page, (200, 200), (170, 130 + 5 * number), 0, 0, 360, 110, -1)
        cv2.ellipse(page, (130, 190), (50, 75), 10, 0, 360, 15 + 10 * number, -1)
        cv2.ellipse(page, (270, 190), (50, 75), -10, 0, 360, 15 + 10 * number, -1)
        cv2.circle(page, (200, 290), 22, 235, -1)
        yield cv2.GaussianBlur(page, (0, 0), 1 + number) + np.random.default_rng(number).normal(0, 8, page.shape)
    rows, columns = np.mgrid[0:400, 0:500]
    depth, angle = np.hypot(rows, columns - 250), np.arctan2(columns - 250, rows + 1)
    for number in range(5):
        speckle = np.random.default_rng(number).rayleigh(45, (100, 125)).astype(np.float32)
        echo = cv2.resize(speckle, (500, 400)) * (1 + np.sin(depth / (15 + 5 * number)))
        yield echo * ((depth > 40) & (depth < 380) & (np.abs(angle) < 0.65))


def _shapes(seed: int) -> Picture:
    rng, page = np.random.default_rng(seed), np.full((400, 400), 20, np.uint8)
    for _ in range(25):
        at, size = rng.integers(0, 400, 2).tolist(), int(rng.integers(10, 60))
        if rng.random() < 0.5:
            cv2.circle(page, at, size, int(rng.integers(40, 256)), -1)
        else:
            cv2.rectangle(page, at, [at[0] + size, at[1] + size], int(rng.integers(40, 256)), -1)
    return page
