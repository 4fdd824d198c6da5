"""
The node as a process: start, spin, and a clean end on a signal.

What the node does is in node.py.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.executors import Executor
    from rclpy.node import Node

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_GIVE_UP = 1000
"""Failures without a success between them after which it is the executor that is broken."""


def main(args: list[str] | None = None) -> int:
    """
    Run the node until SIGINT or SIGTERM; return 0, or 1 when a parameter is refused.

    With `--help`, print its topics and parameters instead.

    Signals are blocked until a thread waits for them, since one during the imports would end in a
    traceback. They stop the node before its context is shut down, so that it can still publish:
    rclpy's own handlers would shut the context down in the middle of a callback. A second signal
    ends the process at once.
    """
    if {'-h', '--help'} & set(sys.argv[1:] if args is None else args):
        from vpr_ros.ros.usage import usage
        try:
            print(usage(), flush=True)
        except BrokenPipeError:  # of `| head`; Python would report it once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return _run(args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(args: list[str] | None) -> int:
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions
    from vpr_ros.ros.node import LocalizerNode
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = LocalizerNode()
    except ParameterException as error:
        print(f'vpr_localizer: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ended = threading.Event()
    wake = node.create_guard_condition(lambda: None)

    def listen() -> None:
        signal.sigwait(SIGNALS)
        ended.set()
        wake.trigger()
        os._exit(128 + signal.sigwait(SIGNALS))

    threading.Thread(target=listen, daemon=True, name='signals').start()
    try:
        if node.get_parameter('autostart').value:
            node.start()
        _spin(executor, node, ended)
    finally:
        node.on_shutdown(None)
        executor.shutdown(timeout_sec=0)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _spin(executor: Executor, node: Node, ended: threading.Event) -> None:
    """Run callbacks until `ended`: one that raises is logged, and does not end the node."""
    failures = 0
    while not ended.is_set():
        try:
            executor.spin_once()
            failures = 0
        except Exception:
            failures += 1
            if failures == _GIVE_UP:
                raise
            node.get_logger().error(f'a request or message failed: {traceback.format_exc()}',
                                    throttle_duration_sec=5.0)


if __name__ == '__main__':
    sys.exit(main())
