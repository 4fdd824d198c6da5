"""
The real node under chaos: random requests, hostile messages, maps that change, signals.

A short share with a fixed seed runs in every run of the tests. `make chaos MINUTES=60` goes on
with others, and keeps a log of what was done; SEED=N begins with that of a failure.
"""

# flake8: noqa: E402  (what imports rclpy comes after the check that it is there)

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
import math
import os
from pathlib import Path
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import psutil
import pytest

rclpy = pytest.importorskip('rclpy')

from lifecycle_msgs.srv import ChangeState
from node_operator import ACTIVATE
from node_operator import CLEANUP
from node_operator import CONFIGURE
from node_operator import DEACTIVATE
from node_operator import frame
from node_operator import node_parameters
from node_operator import Operator
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from small_drive import CAMERA_INFO
from small_drive import COUNT
from small_drive import IMAGES
from small_drive import START
from small_drive import STEP
from std_srvs.srv import Trigger
from vpr_ros.core.files import sha256
from vpr_ros.io import messages
from vpr_ros.localization.running_mean import read_state
from vpr_ros.ros import node_process
from vpr_ros.ros.interfaces import rclpy_types

MINUTES = float(os.environ.get('VPR_CHAOS_MINUTES', '0'))
SEED = int(os.environ.get('VPR_CHAOS_SEED', '1'))
LOG = os.environ.get('VPR_CHAOS_LOG', '')
ACTIONS = 15
"""Done in the short share."""
CHECKUP = 30
"""Actions after which the node has to localise, once all is well again."""
LIMIT = 60.0
START_LIMIT = 240.0
SILENCE = 2.0
"""Seconds between two diagnostics, without the time that the node waited for a processor."""
GROWTH = 100e6
"""Bytes by which a node may grow over what it had when it was first active."""

_ODD = (math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 0.0, -1.0)


class Chaos:
    """A node, the operator that harms it, and what must hold all the time."""

    def __init__(self, site: Path, folder: Path, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._site, self._folder = site, folder
        self._log = Path(LOG or folder / 'chaos.log')
        self._state = folder / 'state.npz'
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, Any] = {}
        self._sent: dict[int, int] = {}
        self._now, self._order = START, 0
        self._actions: tuple[tuple[int, Callable[[], None]], ...] = (
            (8, self.drive), (4, self.transition), (4, self.parameters), (3, self.services),
            (3, self.map_on_disk), (4, self.hostile_image), (4, self.hostile_pose),
            (2, self.flood), (2, self.clock), (1, self.full_disk), (2, self.end_and_restart))
        self.counts: dict[str, int] = {}
        self.operator = Operator(None)
        for kind, topic, name in (
                ('nav_msgs/msg/Odometry', '/odom', 'odometry'),
                ('geometry_msgs/msg/PoseWithCovarianceStamped', '/initialpose', 'initial'),
                (messages.CAMERA_INFO, CAMERA_INFO, 'lens')):
            setattr(self, name, self.operator.node.create_publisher(
                rclpy_types(kind), topic, 100))
        self._restore_map()
        self.say(f'seed {seed}')

    def say(self, line: str) -> None:
        with self._log.open('a', encoding='utf-8') as log:
            log.write(f'{time.strftime("%H:%M:%S")} {line}\n')

    def act(self) -> None:
        """Do one thing, and check."""
        weights = np.array([weight for weight, _ in self._actions], float)
        action = self._actions[self._rng.choice(len(weights), p=weights / weights.sum())][1]
        name = action.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        self.say(name)
        action()
        self.spin(float(self._rng.uniform(0, 0.2)))

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.operator.__exit__()

    # The node

    def start(self) -> None:
        parameters = node_parameters(self._site, map=self._folder / 'map', state_file=self._state)
        arguments = node_process.node_arguments(parameters, IMAGES)
        output = (self._folder / 'node.log').open('ab')
        # Not through shared memory: a process that is killed may leave a lock of Fast DDS in it,
        # for which the nodes of other tests would wait for ever.
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'vpr_ros.ros.run', *arguments], stdout=output, stderr=output,
            env=os.environ | {'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'})
        output.close()
        operator = self.operator
        operator.process = self._process
        operator.diagnostics.clear()
        operator.poses.clear()
        assert operator.wait(lambda: bool(operator.diagnostics), START_LIMIT, self._process)
        self._heard = self._looked = time.monotonic()
        self._waited = self._waiting()
        self._known, self._last = len(operator.diagnostics), -1
        self._most = None

    def _waiting(self) -> float:
        """Return the seconds that the threads of the node have waited for a processor so far."""
        total = 0
        with suppress(OSError):
            for task in Path(f'/proc/{self._process.pid}/task').iterdir():
                with suppress(OSError):
                    total += int((task / 'schedstat').read_text().split()[1])
        return total / 1e9

    def spin(self, seconds: float) -> None:
        """Take what the node publishes for a while, and check it."""
        self.operator.wait(self._check, seconds, self._process)

    def _check(self) -> bool:
        operator, now = self.operator, time.monotonic()
        if now - self._looked > 0.2:  # nobody listened meanwhile
            self._heard, self._waited = now, self._waiting()
        self._looked = now
        if len(operator.diagnostics) != self._known:
            del operator.diagnostics[:-5]
            self._heard, self._waited = now, self._waiting()
            self._known = len(operator.diagnostics)
        elif now - self._heard > SILENCE:  # more than a processor can be missed
            waited = self._waiting() - self._waited
            assert now - self._heard - waited < SILENCE, (
                f'no diagnostics for {now - self._heard:.1f} s, of which {waited:.1f} s waiting')
        for message in operator.poses:
            self._check_pose(message)
        for known in (operator.poses, operator.candidates, operator.confidences, operator.maps,
                      operator.inliers):
            known.clear()
        return False

    def _check_pose(self, message: Any) -> None:
        """Fail where a pose is none, is of no frame that was sent, or comes after a later one."""
        pose = messages.raw_pose(message)
        covariance = np.array(message.pose.covariance).reshape(6, 6)
        assert np.isfinite(pose).all()
        assert abs(np.linalg.norm(pose[3:]) - 1) < 1e-6
        assert np.isfinite(covariance).all()
        assert np.allclose(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert message.header.frame_id == 'map'
        assert -1 <= pose[0] <= COUNT
        order = self._sent.get(messages.stamp_ns(message.header))
        assert order is not None, 'a pose of a frame that was not sent'
        assert order > self._last, 'a pose of an earlier frame'
        self._last = order

    # What is done to it

    def _send(self, place: int, stamp: int) -> None:
        self._order += 1
        self._sent[stamp] = self._order
        self.operator.camera.publish(frame(place, time=stamp))

    def _drove(self, pose: Any, covariance: Any = None) -> None:
        self.odometry.publish(messages.odometry(
            rclpy_types, self._now, 'odom', 'base_link', pose, (1.0, 0.0),
            pose_covariance=covariance))

    def drive(self) -> None:
        """Send frames of places that follow one another, with odometry or without."""
        place, odometry = int(self._rng.integers(COUNT)), self._rng.random() < 0.7
        for _ in range(self._rng.integers(1, 12)):
            place, self._now = (place + 1) % COUNT, self._now + STEP
            if odometry:
                self._drove(np.array([place, 0, 0, 0, 0, 0, 1.0]))
            self._send(place, self._now)
            self.spin(float(self._rng.uniform(0, 0.05)))

    def _call(self, kind: Any, name: str, **fields: Any) -> None:
        """Ask for something, without waiting for the answer."""
        if name not in self._clients:
            self._clients[name] = self.operator.node.create_client(
                kind, f'{node_process.NODE}/{name}')
        self._clients[name].call_async(kind.Request(**fields))

    def transition(self) -> None:
        for _ in range(self._rng.integers(1, 4)):
            request = ChangeState.Request()
            request.transition.id = int(self._rng.choice(
                [CONFIGURE, ACTIVATE, DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE, 99]))
            self._call(ChangeState, 'change_state', transition=request.transition)

    def parameters(self) -> None:
        odd = [*_ODD, 5.0]
        values = {
            'min_confidence': [0.0, 0.5, 1.0, *odd], 'correct_radius': odd, 'max_speed': odd,
            'odometry_error': [0.001, 1.0, *odd], 'top_k': [1, 1000, 0, -5, 2 ** 60],
            'filter': [True, False], 'compensate': [True, False], 'flat': [True, False],
            'map': [str(self._folder / 'map'), str(self._site / 'half'), '', '/dev', '\n' * 500,
                    str(self._site / 'other-map'), str(self._folder / 'none')],
            'model': ['', '/dev/zero', str(self._site / 'm.onnx')], 'threads': [0, 1, 300],
            'provider': ['cpu', 'abacus', ''], 'trusted_keys': ['', '/dev/zero'],
            'transform_timeout': odd, 'image_transport': ['raw', 'compressed', 'x' * 5000]}
        names = self._rng.choice(sorted(values), self._rng.integers(1, 4))
        chosen = {str(name): values[name][self._rng.integers(len(values[name]))] for name in names}
        self.say(f'  {str(chosen)[:200]}')
        self._call(SetParameters, 'set_parameters', parameters=[
            Parameter(name, value=value).to_parameter_msg() for name, value in chosen.items()])

    def services(self) -> None:
        for _ in range(self._rng.integers(1, 40)):
            self._call(Trigger, str(self._rng.choice(['relocalize', 'reload_map'])))

    def _restore_map(self, name: str = 'map') -> None:
        target = self._folder / 'map'
        if target.is_symlink() or target.is_file():
            target.unlink()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._site / name, target)

    def map_on_disk(self) -> None:
        """Exchange, remove, cut or restore the map that the node may be reading."""
        target, harm = self._folder / 'map', self._rng.integers(5)
        files = sorted(target.glob('*.*')) if target.is_dir() else []
        if harm == 0 or not files:
            self._restore_map(str(self._rng.choice(['map', 'half', 'other-map'])))
        elif harm == 1:
            shutil.rmtree(target)
        elif harm == 2:
            file = files[self._rng.integers(len(files))]
            os.truncate(file, self._rng.integers(file.stat().st_size + 1))
        elif harm == 3:
            files[self._rng.integers(len(files))].unlink()
        else:
            data = bytearray(files[0].read_bytes())
            for _ in range(3):
                data[self._rng.integers(len(data))] = self._rng.integers(256)
            files[0].write_bytes(data)
        self._call(Trigger, 'reload_map')

    def hostile_image(self) -> None:
        for _ in range(self._rng.integers(1, 5)):
            self._now += STEP
            message = frame(0, time=self._now)
            name, value = (
                ('height', 2 ** 32 - 1), ('height', 0), ('width', 2 ** 31), ('step', 0),
                ('step', 2 ** 32 - 1), ('encoding', 'bayer_x'), ('encoding', '\n' * 300),
                ('data', b''), ('data', b'x'), ('encoding', 'mono16'), ('encoding', ''),
                ('is_bigendian', 255))[self._rng.integers(12)]
            setattr(message, name, value)
            self._order += 1
            self._sent[self._now] = self._order
            self.operator.camera.publish(message)

    def hostile_pose(self) -> None:
        """Send odometry, initial poses and cameras of impossible numbers."""
        def odd(size: int) -> Any:
            values = self._rng.normal(size=size)
            values[self._rng.random(size) < 0.3] = _ODD[self._rng.integers(len(_ODD))]
            return values
        for _ in range(self._rng.integers(1, 8)):
            kind = self._rng.integers(3)
            if kind == 0:
                self._drove(odd(7), odd(36).reshape(6, 6))
            elif kind == 1:
                self.initial.publish(messages.pose_with_covariance(
                    rclpy_types, self._now, str(self._rng.choice(['map', '', 'x' * 1000])),
                    odd(7), odd(36).reshape(6, 6)))
            else:
                self.lens.publish(messages.camera_info(
                    rclpy_types, self._now, 'camera', odd(9).reshape(3, 3),
                    int(self._rng.choice([0, 80, 2 ** 31])), 60))

    def flood(self) -> None:
        for number in range(200):
            self._now += 1_000_000
            self._send(number % COUNT, self._now)
            self._drove(np.array([0, 0, 0, 0, 0, 0, 1.0]))
            self.spin(0.001)

    def clock(self) -> None:
        """Send frames of another time: hours back, years ahead, the beginning."""
        jump = [-3600, -2, 3600, 10 ** 8, -10 ** 8][self._rng.integers(5)] * 10 ** 9
        self._now = max(0, min(self._now + jump, 2 ** 31 * 10 ** 9 - 10 ** 15))
        self.drive()

    def full_disk(self) -> None:
        """Let the node write no byte for a while: neither its state nor its log."""
        node = psutil.Process(self._process.pid)
        limits = node.rlimit(resource.RLIMIT_FSIZE)
        node.rlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        self.drive()
        self.spin(2.5)  # the state is written every two seconds
        node.rlimit(resource.RLIMIT_FSIZE, limits)

    def end_and_restart(self) -> None:
        """End the node by a signal, look at what it leaves, and start another."""
        which = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)[self._rng.integers(3)]
        self.say(f'  {which.name}')
        self.operator.process = None
        self._process.send_signal(which)
        code = self._process.wait(LIMIT)
        assert code == (-which if which == signal.SIGKILL else 0), f'{which.name}: {code}'
        self._check_files()
        self.start()

    def _check_files(self) -> None:
        """Fail where the state file is not whole, or more than one writer has left a part."""
        if self._state.exists():
            model = sha256(self._site / 'm.onnx')
            with suppress(ValueError):  # of another model: told, and no harm
                read_state(self._state, model)
        parts = list(self._folder.glob('.state.part-*'))
        assert len(parts) <= 1, f'left behind: {parts}'

    def check_up(self) -> None:
        """Undo what was done, and let the node localise: it must have lived through it all."""
        self.say('check-up')
        self._restore_map()
        operator = self.operator
        for change in (DEACTIVATE, CLEANUP):
            operator.change(change)
        assert operator.state() == 'unconfigured'
        assert operator.set_parameters(
            map=str(self._folder / 'map'), model=str(self._site / 'm.onnx'), provider='cpu',
            threads=1, min_confidence=0.5, correct_radius=5.0, top_k=10, filter=True,
            compensate=False, max_speed=15.0, odometry_error=0.1, image_transport='raw',
            flat=False, transform_timeout=30.0) == ''
        assert operator.change(CONFIGURE)
        assert operator.change(ACTIVATE)
        self._now += 3600 * 10 ** 9
        place, last = 0, 0

        def localised() -> bool:
            nonlocal place, last
            if any(messages.stamp_ns(message.header) > last for message in operator.poses):
                return True
            self._now += STEP
            place = (place + 1) % COUNT
            self._send(place, self._now)
            return False
        last = self._now
        operator.poses.clear()
        operator.until(localised)
        self.spin(0.1)
        memory = psutil.Process(self._process.pid).memory_full_info().uss
        self.say(f'  localised; {memory / 1e6:.0f} MB')
        self._most = self._most or memory
        assert memory < self._most + GROWTH, f'{self._most / 1e6:.0f} MB became {memory / 1e6:.0f}'


def _run(site: Path, folder: Path, seed: int, goes_on: Callable[[int], bool]) -> Chaos:
    chaos, done = Chaos(site, folder, seed), 0
    try:
        chaos.start()
        chaos.check_up()
        while goes_on(done):
            chaos.act()
            done += 1
            if done % CHECKUP == 0:
                chaos.check_up()
        chaos.check_up()
    except BaseException:
        chaos.say('FAILED')
        raise
    finally:
        chaos.close()
    return chaos


def test_the_node_lives_through_chaos(site: Path, alone: None, tmp_path: Path) -> None:
    if not MINUTES:
        chaos = _run(site, tmp_path, SEED, lambda done: done < ACTIONS)
        assert sum(chaos.counts.values()) == ACTIONS
        return
    seed, end = SEED, time.monotonic() + 60 * MINUTES
    while time.monotonic() < end:
        folder = tmp_path / str(seed)
        folder.mkdir()
        begin = time.monotonic()
        chaos = _run(site, folder, seed, lambda done, begin=begin:
                     time.monotonic() < min(end, begin + 300))
        print(f'chaos: seed {seed}, {sum(chaos.counts.values())} actions {chaos.counts}: '
              'no violation', file=sys.__stderr__, flush=True)
        seed += 1
