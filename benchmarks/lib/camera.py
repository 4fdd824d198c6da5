"""
A camera for node_rate.py: publishes images at a steady rate, best effort, as drivers do.

Run as a process of its own. It keeps absolute deadlines; one that it misses by a whole period is
skipped and not made up for, so that it never sends a burst.
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


def camera(frames: str, topic: str, rate: float, seconds: float) -> dict[str, float]:
    """
    Publish the images uint8 (N,H,W,3) of an .npy file, forwards and backwards in turns.

    Every stamp is the time of sending. Returns the numbers of frames sent and skipped, the seconds
    taken and the rate. Raises TimeoutError when nothing subscribes.
    """
    rclpy.init(args=[])
    node = rclpy.create_node('vpr_camera', start_parameter_services=False)
    try:
        publisher = node.create_publisher(rclpy_types(messages.RAW_IMAGE), topic, QoSProfile(
            depth=_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT))
        forwards = [messages.image(rclpy_types, 0, 'camera', image)
                    for image in np.load(frames, allow_pickle=False)]
        order = forwards + forwards[-2:0:-1]  # and backwards: no jump at the end
        limit = time.monotonic() + WAIT_LIMIT
        while publisher.get_subscription_count() == 0:
            if time.monotonic() > limit:
                raise TimeoutError(f'nothing subscribed to {topic} within {WAIT_LIMIT:g} s')
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
    """Run from the command line; the figures go to the file `--json`."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('frames', metavar='NPY')
    parser.add_argument('--topic', required=True)
    parser.add_argument('--rate', type=float, required=True, help='frames per second')
    parser.add_argument('--seconds', type=float, required=True)
    parser.add_argument('--json', required=True, metavar='OUT')
    options = parser.parse_args()
    sent = camera(options.frames, options.topic, options.rate, options.seconds)
    Path(options.json).write_text(json.dumps(sent))
    return 0


if __name__ == '__main__':
    sys.exit(main())
