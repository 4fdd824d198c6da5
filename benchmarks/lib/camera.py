"""
A camera for node_rate.py: publishes pictures at a steady rate, best effort, as drivers do.

Run as a process of its own. Its pace is that of absolute deadlines; one that it misses by a whole
period is skipped and not made up for, so that it never sends a burst.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import sys
import time

import numpy as np
import rclpy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from vpr_ros.io import messages
from vpr_ros.ros.interfaces import rclpy_types

WAIT_LIMIT = 30.0
_DEPTH = 5


def camera(pictures: str, topic: str, rate: float, seconds: float) -> dict[str, float]:
    """
    Publish the pictures uint8 (N,H,W,3) of an .npy file, forth and back; return what was sent.

    Every stamp is the time of sending. Raises TimeoutError when nobody subscribes.
    """
    rclpy.init(args=[])
    node = rclpy.create_node('vpr_camera', start_parameter_services=False)
    try:
        publisher = node.create_publisher(rclpy_types(messages.RAW_IMAGE), topic, QoSProfile(
            depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT))
        frames = [messages.image(rclpy_types, 0, 'camera', picture)
                  for picture in np.load(pictures, allow_pickle=False)]
        order = frames + frames[-2:0:-1]  # forth and back: no jump at the end
        limit = time.monotonic() + WAIT_LIMIT
        while publisher.get_subscription_count() == 0:
            if time.monotonic() > limit:
                raise TimeoutError(f'nobody subscribed to {topic} within {WAIT_LIMIT:g} s')
            time.sleep(0.01)
        sent = tick = 0
        begin = time.monotonic()
        while tick < seconds * rate:
            time.sleep(max(0.0, begin + tick / rate - time.monotonic()))
            message = order[sent % len(order)]
            message.header.stamp = messages.time_message(rclpy_types, time.time_ns())
            publisher.publish(message)
            sent += 1
            tick = max(tick + 1, int((time.monotonic() - begin) * rate))
        lasted = time.monotonic() - begin
        return {'sent': sent, 'skipped': tick - sent, 'seconds': lasted, 'rate': sent / lasted}
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def main() -> int:
    """Run from the command line; what was sent goes to the file `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('pictures', metavar='NPY')
    parser.add_argument('--topic', required=True)
    parser.add_argument('--rate', type=float, required=True, help='frames a second')
    parser.add_argument('--seconds', type=float, required=True)
    parser.add_argument('--json', required=True, metavar='OUT')
    options = parser.parse_args()
    sent = camera(options.pictures, options.topic, options.rate, options.seconds)
    Path(options.json).write_text(json.dumps(sent))
    return 0


if __name__ == '__main__':
    sys.exit(main())
