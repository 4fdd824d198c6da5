"""The belief: it stays a probability, follows the robot, and can say 'nowhere'."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
import pytest
from vpr_ros.core import poses
from vpr_ros.localization.belief import Belief
from vpr_ros.localization.belief import EXPECTED_EVIDENCE
from vpr_ros.localization.belief import WINDOW
from vpr_ros.localization.motions import SPEEDS


def street(count: int, spacing: float = 1.0) -> NDArray[np.float64]:
    """Return the poses (N,7) of places in a row along x."""
    x = np.arange(count) * spacing
    return poses.planar(x, 0 * x, 0 * x)


def median(belief: Belief) -> int:
    """Return the place with half of the probability before it."""
    held = np.cumsum(belief.places)
    return int(np.searchsorted(held, held[-1] / 2))


def seen(belief: Belief, place: int, ratio: float = 100.0) -> None:
    """Let a belief see what speaks for one place."""
    belief.update(np.array([place]), np.array([ratio]), 0.3)


def total(belief: Belief) -> float:
    return float(belief.places.sum()) + belief.nowhere


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.booleans())
def test_it_sums_to_one_and_is_never_negative(seed: int, count: int, odometry: bool) -> None:
    random = np.random.default_rng(seed)
    x, y, yaw = random.normal(0, 10, (3, count))
    belief = Belief(poses.planar(x, y, yaw))
    for _ in range(10):
        motion = random.normal(0, 3, 3) if odometry else None
        belief.predict(random.uniform(0, 5), motion, 15.0)
        belief.update(random.permutation(count)[:5], random.uniform(0, 1000, min(5, count)), 0.1)
        assert total(belief) == pytest.approx(1)
        assert (belief.places >= 0).all()
        assert 0 <= belief.nowhere <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_places_does_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y, yaw = random.normal(0, 10, (3, 30))
    place_poses = poses.planar(x, y, yaw)
    order = random.permutation(30)
    plain, shuffled = Belief(place_poses, 1.0), Belief(place_poses[order], 1.0)
    for step in range(6):
        motion, ratios = random.normal(0, 1, 3), random.uniform(0, 10, 30)
        for belief, own in ((plain, ratios), (shuffled, ratios[order])):
            belief.predict(0.5, motion if step % 3 else None, 15.0)
            belief.update(np.arange(30), own, 1.0)
    np.testing.assert_allclose(shuffled.places, plain.places[order], atol=1e-12)
    assert shuffled.nowhere == pytest.approx(plain.nowhere)


def test_mass_moves_with_odometry() -> None:
    belief = Belief(street(100))
    for place in range(20, 40, 2):
        seen(belief, place)
        belief.predict(0.2, np.array([2.0, 0.0, 0.0]), 15.0)
    assert belief.places.argmax() == 40
    assert belief.places[37:44].sum() > 0.9


def test_worse_odometry_leaves_more_doubt() -> None:
    spread = []
    for error in (0.01, 0.1, 0.5):
        belief = Belief(street(200))
        belief.expect(poses.planar(50.0, 0.0, 0.0), 1.0)
        for _ in range(20):
            belief.predict(0.3, np.array([3.0, 0.0, 0.0]), 15.0, error)
        assert abs(median(belief) - 110) <= 2
        spread.append(belief.places[108:113].sum())
    assert spread[0] > spread[1] > spread[2]


def test_a_long_step_is_followed_as_well_as_many_short_ones() -> None:
    belief = Belief(street(200))
    for _ in range(3):
        seen(belief, 20, 1000.0)
    belief.predict(1.0, np.array([90.0, 0.0, 0.0]), 15.0)
    assert median(belief) == pytest.approx(110, abs=5)


def test_a_turn_is_followed_around_a_corner() -> None:
    leg = np.arange(30.0)
    x = np.concatenate([leg, np.full(30, 30.0)])
    y = np.concatenate([0 * leg, leg])
    yaw = np.concatenate([0 * leg, np.full(30, np.pi / 2)])
    belief = Belief(poses.planar(x, y, yaw))
    for _ in range(3):
        seen(belief, 28, 1000.0)
    belief.predict(0.5, np.array([2.0, 0.0, np.pi / 2]), 15.0)
    for _ in range(3):
        belief.predict(0.5, np.array([2.0, 0.0, 0.0]), 15.0)
    assert abs(int(belief.places.argmax()) - 36) <= 1


def test_without_odometry_mass_reaches_no_farther_than_the_speed_allows() -> None:
    belief = Belief(street(200))
    for _ in range(4):
        seen(belief, 100, 1000.0)
    before = belief.places.copy()
    belief.predict(1.0, None, 5.0)
    gained = np.flatnonzero(belief.places > before + 1e-3)
    assert gained.min() >= 98
    assert gained.max() <= 107  # 5 m, and two thirds of a gap between two speeds


def test_without_odometry_the_speed_is_found_out() -> None:
    belief = Belief(street(400))
    for place in range(20, 80, 3):
        seen(belief, place, 30.0)
        belief.predict(1.0, None, 15.0)
    for _ in range(5):  # sees nothing more, and goes on at its speed
        belief.predict(1.0, None, 15.0)
    centre = np.average(np.arange(400), weights=belief.places)
    assert centre == pytest.approx(95, abs=8)
    assert belief.places[60:90].sum() < 0.3


def test_what_somebody_says_counts_as_evidence_there_only() -> None:
    belief = Belief(street(100))
    belief.expect(street(100)[40], 2.0)
    assert belief.evidence[40] == pytest.approx(EXPECTED_EVIDENCE, abs=0.01)
    assert belief.evidence[80] < 0.01


def test_support_is_the_mean_evidence_on_the_way() -> None:
    belief = Belief(street(100))
    assert not belief.evidence.any()
    for place in range(20, 80, 2):
        seen(belief, place, np.exp(3.0))
        assert belief.evidence.max() <= 3.0 + 1e-9
        belief.predict(0.2, np.array([2.0, 0.0, 0.0]), 15.0)
    assert belief.evidence[80] == pytest.approx(3 * (1 - (1 - 1 / WINDOW) ** 30), abs=0.1)
    assert belief.evidence[10] < 0
    belief.forget()
    assert not belief.evidence.any()


def test_frames_that_show_nothing_new_add_no_support() -> None:
    belief = Belief(street(10))
    for _ in range(50):
        belief.update(np.array([3]), np.array([20.0]), 0.3, weight=0.0, novelty=0.0)
    assert not belief.evidence.any()
    np.testing.assert_allclose(belief.places, belief.places[0])


def test_odometry_that_comes_and_goes_keeps_the_belief() -> None:
    belief = Belief(street(200))
    for place in range(20, 60, 2):
        seen(belief, place)
        belief.predict(0.2, np.array([2.0, 0.0, 0.0]) if place % 6 else None, 10.0)
        assert total(belief) == pytest.approx(1)
    assert abs(int(belief.places.argmax()) - 60) <= 1


def test_an_update_is_bayes_rule_for_each_place() -> None:
    belief = Belief(street(300))
    rng = np.random.default_rng(0)
    for number in range(6):
        places = rng.integers(0, 300, 40)  # some of them twice: the last one counts
        ratios = rng.uniform(0.05, 20.0, 40)
        before, nowhere = belief.places.copy(), belief.nowhere
        likelihood = np.full(300, 0.2)
        likelihood[places] = ratios
        belief.update(places, ratios, 0.2, weight=0.7, novelty=0.5)
        scaled = before * likelihood ** 0.7
        total_mass = scaled.sum() + nowhere
        np.testing.assert_allclose(belief.places, scaled / total_mass, rtol=1e-9)
        assert belief.nowhere == pytest.approx(nowhere / total_mass)
        belief.predict(0.2, None if number % 2 else np.array([2.0, 0.0, 0.0]), 15.0)
        assert total(belief) == pytest.approx(1, abs=1e-12)


def test_the_evidence_of_some_places_is_that_of_all() -> None:
    belief = Belief(street(100))
    for place in range(20, 60, 2):
        seen(belief, place)
        belief.predict(0.2, None, 15.0)
    some = np.array([58, 3, 60])
    np.testing.assert_allclose(belief.evidence_of(some), belief.evidence[some], rtol=1e-12)


def test_places_within_a_radius_are_found_in_their_order() -> None:
    rng = np.random.default_rng(0)
    place_poses = poses.planar(rng.uniform(0, 50, 400), rng.uniform(0, 50, 400), np.zeros(400))
    belief = Belief(place_poses)
    for place in range(0, 400, 37):
        expected = np.flatnonzero(poses.distance(place_poses, place_poses[place]) <= 5.0)
        np.testing.assert_array_equal(belief.within(place_poses[place, :3], 5.0), expected)


def test_turns_are_the_same_whichever_way_headings_are_counted() -> None:
    x, heading = np.arange(60.0), np.linspace(2.8, 3.6, 60)  # through pi
    beliefs = [Belief(poses.planar(np.cos(turned) * x, np.sin(turned) * x, heading + turned))
               for turned in (0.0, 2.0)]
    for belief in beliefs:
        for place in range(20, 40, 2):
            seen(belief, place)
            belief.predict(0.2, None, 15.0)
    np.testing.assert_allclose(beliefs[0].places, beliefs[1].places, atol=1e-9)


def test_driving_off_the_end_of_the_map_leads_nowhere() -> None:
    belief = Belief(street(50))
    for _ in range(3):
        seen(belief, 48, 1000.0)
    for _ in range(10):
        belief.predict(0.2, np.array([2.0, 0.0, 0.0]), 15.0)
        belief.update(np.arange(0), np.zeros(0), 0.8)
    assert belief.nowhere > 0.8


def test_a_robot_that_is_past_the_end_is_not_there_however_much_it_looks_so() -> None:
    belief = Belief(street(60))
    for place in range(50, 60):
        seen(belief, place)
        belief.predict(0.2, np.array([1.0, 0.0, 0.0]), 15.0)
    for _ in range(8):
        seen(belief, 59, ratio=2.0)  # the street goes on in the same direction
        belief.predict(0.2, np.array([1.0, 0.0, 0.0]), 15.0)
    assert belief.nowhere > 0.5


def test_a_gap_of_two_spacings_is_driven_across() -> None:
    belief = Belief(np.delete(street(60), 50, axis=0), 1.0)
    for place in range(40, 50):
        seen(belief, place)
        belief.predict(0.2, np.array([1.0, 0.0, 0.0]), 15.0)
    belief.predict(0.2, np.array([1.0, 0.0, 0.0]), 15.0)
    assert belief.places[48:53].sum() > 0.8


def test_only_who_drives_gets_off_the_map() -> None:
    nowhere = []
    for metres in (1.0, 16.0):
        belief = Belief(street(100))
        belief.set_odometry(available=True)
        for _ in range(5):
            seen(belief, 50)
        before = belief.nowhere
        belief.follow(np.array([metres, 0.0, 0.0]))
        nowhere.append(belief.nowhere - before)
    assert nowhere[1] > 2 * nowhere[0] > 0


def test_odometry_that_contradicts_what_is_seen_is_not_believed_and_is_again() -> None:
    belief = Belief(street(450))
    shares, along = [], 20.0
    for number in range(300):
        stuck = 60 <= number < 150
        step = 1.3 + 0.4 * np.sin(number / 4)  # a speed that changes: only odometry knows it
        seen(belief, round(along), 1000.0)
        belief.predict(0.2, np.array([0.0 if stuck else step, 0.0, 0.0]), 15.0)
        along += step
        shares.append(belief.odometry_share)
        if number > 30:
            assert abs(int(belief.places.argmax()) - along) <= 3
    assert min(shares[10:60]) > 0.9
    assert max(shares[80:150]) < 0.5
    assert np.mean(shares[80:150]) < 0.1
    assert shares[-1] > 0.9


def test_without_odometry_a_steady_speed_does_not_spread() -> None:
    belief = Belief(street(200))
    belief.expect(poses.planar(10.0, 0.0, 0.0), 1.0)
    for number in range(60):  # the speed is learnt; then nothing is seen for 20 places
        belief.predict(0.2, None, 15.0)
        if number < 40:
            seen(belief, 10 + number, 1000.0)
    assert abs(median(belief) - 69) < 6
    assert belief.places[57:82].sum() > 0.7


def test_what_speaks_against_a_speed_counts() -> None:
    belief = Belief(street(100))
    belief.expect(poses.planar(10.0, 0.0, 0.0), 1.0)
    belief.predict(0.1, None, 15.0)
    slower = belief.mean_speed
    stands = np.ones(1 + len(SPEEDS))
    stands[1] = 1e-3
    belief.wait(0.1, 15.0, stands)
    assert belief.mean_speed > slower
    assert total(belief) == pytest.approx(1)


@pytest.mark.parametrize('metres', [5e3, 1e6, 1e200, -1e200])
def test_an_absurd_motion_leaves_a_belief_that_goes_on(metres: float) -> None:
    belief = Belief(street(50))
    for motion in (metres, -metres, 1.0):
        belief.predict(0.2, np.array([motion, 0.0, 0.0]), 15.0)
        assert total(belief) == pytest.approx(1)
    for place in range(10, 40):
        seen(belief, place, 1000.0)
        belief.predict(0.2, np.array([1.0, 0.0, 0.0]), 15.0)
    assert abs(int(belief.places.argmax()) - 40) <= 1


def test_a_carried_robot_is_found_again() -> None:
    belief = Belief(street(1000))
    for place in range(20, 60, 2):
        seen(belief, place)
        belief.predict(0.2, np.array([2.0, 0.0, 0.0]), 15.0)
    for place in range(700, 730, 2):
        seen(belief, place)
        belief.predict(0.2, np.array([2.0, 0.0, 0.0]), 15.0)
    assert abs(int(belief.places.argmax()) - 730) <= 2


def test_an_expected_pose_tells_which_of_two_alike_places_it_is() -> None:
    belief = Belief(street(100))
    belief.expect(poses.planar(70.0, 0.0, 0.0), 3.0)
    belief.update(np.array([10, 70]), np.array([50.0, 50.0]), 0.3)
    assert belief.places.argmax() == 70
    assert belief.places[10] < 0.01


def test_standing_still_leaves_the_belief_where_it_is() -> None:
    belief = Belief(street(100))
    for _ in range(3):
        seen(belief, 40, 1000.0)
    belief.predict(0.0, np.zeros(3), 15.0)
    assert belief.places.argmax() == 40


@pytest.mark.parametrize('moving', [True, False])
def test_what_is_put_off_is_done_before_numbers_run_over(moving: bool) -> None:
    # Each frame takes all other places down by a factor of a thousand.
    belief = Belief(street(40))
    for _ in range(3000):
        if moving:
            belief.predict(0.2, np.array([0.1, 0.0, 0.0]), 15.0)
        belief.update(np.array([20, 21, 22]), np.array([10.0, 10.0, 10.0]), 0.01)
    assert total(belief) == pytest.approx(1)
    assert (belief.places >= 0).all()
    assert belief.places[20:23].sum() > 0.9
    np.testing.assert_allclose(belief.evidence[20:23], np.log(10.0), rtol=0.05)


def test_time_cannot_pass_backwards() -> None:
    with pytest.raises(ValueError, match='backwards'):
        Belief(street(10)).predict(-1.0, None, 15.0)


@pytest.mark.parametrize('place_poses', [
    street(1), street(2), np.repeat(street(1), 2, axis=0), np.repeat(street(1), 50, axis=0)],
    ids=['one place', 'two places', 'two in one spot', 'all in one spot'])
def test_a_degenerate_map_gives_numbers(place_poses: NDArray[np.float64]) -> None:
    belief = Belief(place_poses)
    for motion in (None, np.array([1.0, 0.0, 0.1]), np.zeros(3)):
        belief.predict(0.1, motion, 15.0)
        seen(belief, 0)
        assert np.isfinite(belief.places).all()
        assert np.isfinite(belief.evidence).all()
        assert total(belief) == pytest.approx(1)


def test_a_map_of_a_hundred_thousand_places_is_no_special_case() -> None:
    x = np.tile(np.arange(1000.0), 100)
    y = np.repeat(np.arange(100) * 20.0, 1000)
    belief = Belief(poses.planar(x, y, 0 * x), 1.0)
    for step in range(40):
        seen(belief, 50_100 + 2 * step, 1000.0)
        belief.predict(0.2, np.array([2.0, 0.0, 0.0]) if step % 2 else None, 15.0)
    assert total(belief) == pytest.approx(1)
    assert abs(int(belief.places.argmax()) - 50_180) <= 3


@pytest.mark.parametrize('deviation', [float('nan'), float('inf'), -1.0])
def test_a_deviation_that_is_no_number_is_refused(deviation: float) -> None:
    belief = Belief(street(10))
    with pytest.raises(ValueError, match='deviation'):
        belief.expect(poses.planar(1.0, 0.0, 0.0), deviation)
    assert total(belief) == pytest.approx(1)
