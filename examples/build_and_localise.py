"""
Build a map from one drive and localise another one on it.

Each drive is a bag, or a folder of images with poses.csv: see docs/maps.md. Without drives of your
own, make two with `vpr street` (docs/street.md):

    vpr street --season winter --rate 4 --output winter.mcap
    vpr street --season spring --drive 1 --rate 4 --output spring.mcap
    python examples/build_and_localise.py winter.mcap spring.mcap
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from vpr_ros import build_map
from vpr_ros import Encoder
from vpr_ros import Localizer
from vpr_ros import open_source
from vpr_ros.core.errors import VprError
from vpr_ros.core.poses import distance


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return the exit status."""
    parser = argparse.ArgumentParser(description='Build a map from one drive and localise another '
                                                 'one on it.')
    parser.add_argument('mapping_drive', help='bag or folder of images, with poses')
    parser.add_argument('other_drive', help='the same: its poses are the truth')
    parser.add_argument('--model', help='an .onnx model (default: the bundled one)')
    parser.add_argument('--spacing', type=float, default=1.0, help='metres between places')
    parser.add_argument('--min-confidence', type=float, default=0.95)
    parser.add_argument('--every', type=int, default=10, help='print one frame in so many')
    options = parser.parse_args(arguments)

    try:
        encoder = Encoder(options.model)
        place_map = build_map([open_source(options.mapping_drive)], encoder,
                              spacing=options.spacing)
        print(f'map: {len(place_map)} places, {encoder.dimension} dimensions')
        localise(Localizer(encoder, place_map, min_confidence=options.min_confidence),
                 options.other_drive, options.every)
    except (VprError, FileNotFoundError) as error:
        parser.exit(1, f'{error}\n')
    return 0


def localise(localizer: Localizer, drive: str, every: int) -> None:
    """Localise each frame of a drive and compare it with the drive's own poses."""
    errors = []
    with open_source(drive) as source:
        for number, frame in enumerate(source.frames):
            estimate = localizer.localize(frame.load(), frame.stamp)
            error = float(distance(estimate.pose, frame.pose))
            if estimate.trusted:
                errors.append(error)
            if number % every == 0:
                x, y = estimate.pose[:2]
                print(f'frame {number:5d}  {estimate.confidence:4.0%} confident  '
                      + (f'x {x:7.1f}  y {y:7.1f}  error {error:5.2f} m' if estimate.trusted
                         else f'no pose: {estimate.reason.value}'))
    right = sum(error <= localizer.correct_radius for error in errors)
    print(f'{len(errors)} of {source.count} frames have a pose, {right} of them right within '
          f'{localizer.correct_radius:g} m')


if __name__ == '__main__':
    raise SystemExit(main())
