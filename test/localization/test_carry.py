"""A refined pose is carried on by odometry, with a covariance that grows as its error does."""

from __future__ import annotations

from dataclasses import replace

from landmark_world import estimate_at
import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.localization.carry import carried
from vpr_ros.localization.carry import Drift
from vpr_ros.localization.carry import FARTHEST
from vpr_ros.localization.estimate import Estimate
from vpr_ros.localization.refine import difference
from vpr_ros.maps.confidence import Mode

SECOND = 10**9
FINE = np.diag([0.03, 0.03, 0.05, 0.01, 0.01, 0.002]) ** 2


def _estimate(seconds: float, pose: np.ndarray, covariance: np.ndarray) -> Estimate:
    return replace(estimate_at(pose, round(seconds * SECOND), Mode.ODOMETRY),
                   covariance=covariance)


REFINED = replace(_estimate(0.0, poses.planar(5.0, 2.0, 0.5), FINE), landmarks=np.ones((30, 3)))
MOTION = np.array([2.0, 0.1, 0.2])
DRIFT = 0.1, np.radians(0.5)


def _place(seconds: float = 1.0, motion: np.ndarray = MOTION, off: float = 1.0) -> Estimate:
    there = poses.moved(REFINED.pose, motion)
    there[1:3] += off, 0.3
    return _estimate(seconds, there, np.eye(6))


def test_the_pose_moves_as_odometry_says_on_the_ground_of_the_place() -> None:
    place = _place()
    found = carried(REFINED, place, MOTION, DRIFT)
    assert found is not None
    np.testing.assert_allclose(found.pose[:2], poses.moved(REFINED.pose, MOTION)[:2])
    assert found.pose[2] == place.pose[2]
    assert poses.heading(found.pose) == pytest.approx(0.7)
    assert not found.refined
    assert found.stamp == place.stamp
    assert found.place_pose is place.pose
    assert found.confidence == place.confidence
    assert (np.linalg.eigvalsh(found.covariance) > 0).all()
    assert np.trace(found.covariance[:2, :2]) > np.trace(FINE[:2, :2]) + (0.1 * 2) ** 2
    rough = carried(REFINED, place, MOTION, DRIFT, flat=False)
    assert rough is not None
    assert rough.covariance[2, 2] > 10 * found.covariance[2, 2]


def test_the_covariance_is_that_of_the_error() -> None:
    rng = np.random.default_rng(2)
    plane = np.ix_((0, 1, 5), (0, 1, 5))
    motion, error, turning = np.array([6.0, 0.0, 0.3]), 0.05, np.radians(0.3)
    truth = poses.moved(REFINED.pose, motion)
    scores = []
    for _ in range(300):
        start = REFINED.pose.copy()
        off = rng.multivariate_normal(np.zeros(3), FINE[plane])
        start[:2] += off[:2]
        start = poses.moved(start, np.array([0.0, 0.0, off[2]]))
        slip = motion + rng.normal(0, [error * 6, error * 6, np.hypot(0.02 * 0.3, turning * 6)])
        found = carried(replace(REFINED, pose=start), _place(1.0, motion), slip, (error, turning))
        assert found is not None
        wrong = difference(found.pose, truth)[[0, 1, 5]]
        scores.append(wrong @ np.linalg.solve(found.covariance[plane], wrong) / 3)
    assert np.mean(scores) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(('estimate', 'motion'), [
    (replace(_place(), mode=Mode.SEQUENCE), MOTION),
    (_place(), np.array([FARTHEST + 1, 0.0, 0.0])),
    (_place(20.0), MOTION),
    (_place(-1.0), MOTION),
    (_place(off=6.0), MOTION),
    (replace(_place(), covariance=np.eye(6) * 0.01), MOTION)], ids=[
        'odometry that is not believed', 'far', 'old', 'before', 'elsewhere', 'a certain place'])
def test_a_place_may_be_better(estimate: Estimate, motion: np.ndarray) -> None:
    assert carried(REFINED, estimate, motion, DRIFT) is None


def test_the_error_of_odometry_is_learnt_from_refined_poses() -> None:
    rng = np.random.default_rng(3)
    drift = Drift(0.1)
    before = REFINED
    assert drift.values[0] == pytest.approx(0.1)
    plane = np.ix_((0, 1, 5), (0, 1, 5))
    first = (np.inf, np.inf)
    for number in range(40):
        off = rng.multivariate_normal(np.zeros(3), FINE[plane])  # that is not odometry's
        truth = poses.moved(before.pose, MOTION)
        after = replace(before, pose=poses.moved(truth, np.array([*off[:2], off[2]])))
        slip = MOTION + rng.normal(0, [0.02 * 2, 0.02 * 2, 0.001 * 2])
        assert drift.compare(replace(before, covariance=np.zeros((6, 6))), after, slip)
        assert not drift.compare(before, before, np.array([0.1, 5e-2, 0.0]))  # it stands
        before = replace(after, pose=truth)
        if number == 4:
            first = drift.values
    assert first[0] < 0.05  # after ten metres
    assert drift.values[0] == pytest.approx(0.02, rel=0.4)
    assert drift.values[1] == pytest.approx(0.001, rel=0.6)
