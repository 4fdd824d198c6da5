"""
How far images that show nothing are from those that show little: blank_images.MIN_STRUCTURE.

    python -m benchmarks.accuracy.blank_images FOLDER...

Prints the structure of the emptiest photographs below the folders, and of blank images with
camera noise of 5 grey levels: the largest for each shape of the light.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from vpr_ros.core import images
from vpr_ros.core.blank_images import MIN_STRUCTURE
from vpr_ros.core.blank_images import structure
from vpr_ros.core.errors import ImageError

SIZE = 240, 320
CAMERAS = (120, 160), (240, 320), (480, 640), (720, 1280)
NOISE = 5.0


def photographs(folders: list[Path]) -> list[tuple[float, Path]]:
    """Return the structure of each photograph below the folders, the emptiest first."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob('*')):
            if path.suffix.lower() not in images.SUFFIXES:
                continue
            try:
                rgb = images.resize(images.read(path), *SIZE)
            except ImageError:
                continue
            found.append((structure(rgb)[0], path))
    return sorted(found)


def blanks() -> dict[str, float]:
    """Return the largest structure of blank images, by the shape of their light."""
    rng = np.random.default_rng(0)
    largest: dict[str, float] = {}
    for height, width in CAMERAS:
        y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
        squared = x ** 2 + y ** 2
        shapes = {'uniform': 1 + 0 * x, 'vignette': (1 + squared / 2) ** -2,
                  'strong vignette': np.exp(-squared), 'ramp': (1 + x) / 2}
        for name, shape in shapes.items():
            for level in (0, 3, 60, 128, 250):
                noisy = (level * shape)[..., None] + rng.normal(0, NOISE, (height, width, 1))
                rgb = np.repeat(np.clip(noisy, 0, 255).astype(np.uint8), 3, axis=2)
                for seen in (rgb, images.decode(images.encode_jpeg(rgb, 50))):
                    found = structure(images.resize(seen, *SIZE))[0]
                    largest[name] = max(found, largest.get(name, 0.0))
    return largest


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folders', nargs='*', type=Path, metavar='FOLDER')
    print(f'refused below {MIN_STRUCTURE:g}')
    for name, largest in blanks().items():
        print(f'{largest:6.2f}  {name}')
    found = photographs(parser.parse_args().folders)
    print(f'{len(found)} photographs, the emptiest:')
    for value, path in found[:5]:
        print(f'{value:6.2f}  {path}')


if __name__ == '__main__':
    main()
