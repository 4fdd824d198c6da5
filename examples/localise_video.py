"""
Localise a video file, or a camera, on a map; one line per frame.

    python examples/localise_video.py my_map drive.mp4
    python examples/localise_video.py my_map 0            # the first camera, until Ctrl-C
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from collections.abc import Sequence
import time

import cv2
import numpy as np
from numpy.typing import NDArray
from vpr_ros import Encoder
from vpr_ros import Localizer
from vpr_ros import PlaceMap
from vpr_ros.core.errors import VprError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example; return the exit status."""
    parser = argparse.ArgumentParser(description='Localise a video file or a camera on a map.')
    parser.add_argument('map', help='directory of a map, from `vpr build-map`')
    parser.add_argument('video', help='video file, or the number of a camera')
    parser.add_argument('--model', help='the model that made the map (default: the bundled one)')
    parser.add_argument('--max-speed', type=float, default=15.0,
                        help='fastest that the camera moves, m/s')
    options = parser.parse_args(arguments)

    try:
        localizer = Localizer(Encoder(options.model), PlaceMap.load(options.map),
                              max_speed=options.max_speed)
        count = localised = 0
        for stamp, rgb in frames(options.video):
            estimate = localizer.localize(rgb, stamp)
            count += 1
            localised += estimate.trusted
            x, y = estimate.pose[:2]
            print(f'{stamp / 1e9:10.2f} s  {estimate.confidence:4.0%} confident  '
                  + (f'x {x:7.1f}  y {y:7.1f}' if estimate.trusted
                     else f'no pose: {estimate.reason.value}'))
    except (VprError, FileNotFoundError) as error:
        parser.exit(1, f'{error}\n')
    except KeyboardInterrupt:
        print()
    print(f'{localised} of {count} frames have a pose')
    return 0


def frames(video: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (stamp in ns, RGB image (H,W,3)); a camera's stamps are the time of arrival."""
    camera = video.isdigit()
    capture = cv2.VideoCapture(int(video) if camera else video)
    if not capture.isOpened():
        raise FileNotFoundError(f'{video} cannot be opened as a video')
    frame_time = round(1e9 / (capture.get(cv2.CAP_PROP_FPS) or 30.0))
    number = 0
    try:
        while True:
            ok, bgr = capture.read()
            if not ok:
                return
            yield (time.time_ns() if camera else number * frame_time,
                   cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            number += 1
    finally:
        capture.release()


if __name__ == '__main__':
    raise SystemExit(main())
