"""Descriptors of a drive's frames: what is left out, and what stays in memory."""

from __future__ import annotations

from dataclasses import replace
import weakref

import numpy as np
import pytest
import small_drive
from vpr_ros.core.errors import SourceError
from vpr_ros.io.frames import Source
from vpr_ros.io.sources import open_source
from vpr_ros.offline.descriptors import describe_frames


def test_frames_with_bad_images_are_left_out(tmp_path, encoder, caplog):
    folder = small_drive.write_folder(tmp_path / 'drive', pose_file='poses.csv')
    small_drive.write_damaged(folder / '003.png')
    with open_source(folder) as source:
        frames, descriptors, seconds = describe_frames(source, encoder)
    assert [frame.pose[0] for frame in frames] == [n for n in range(small_drive.COUNT) if n != 3]
    np.testing.assert_array_equal(descriptors[5], encoder.encode(frames[5].load()))
    assert {stage: len(each) for stage, each in seconds.items()} == {'decode': 39, 'encode': 39}
    assert '1 frames left out' in caplog.text


def test_a_bag_of_raw_images_is_not_held_in_memory(tmp_path, encoder):
    loads = []

    def tracked(frames):
        for frame in frames:
            loads.append(weakref.ref(frame.load))
            yield frame

    with open_source(small_drive.write_bag(tmp_path / 'drive')) as source:
        frames, descriptors, _ = describe_frames(
            replace(source, frames=tracked(source.frames)), encoder)
    assert len(loads) == small_drive.COUNT
    assert sum(load() is not None for load in loads) <= 1
    # What is kept still shows the place.
    shown = encoder.encode(frames[7].load())
    assert shown @ descriptors[7] > 0.99


def test_only_the_frames_asked_for_are_described(tmp_path, encoder):
    with open_source(small_drive.write_bag(tmp_path / 'drive')) as source:
        frames, _, _ = describe_frames(source, encoder, {4, 20})
    assert [frame.pose[0] for frame in frames] == [4, 20]


def test_a_drive_without_frames_is_an_error(encoder):
    with pytest.raises(SourceError, match='empty has no frame with a pose and an image'):
        describe_frames(Source('empty', [], 0), encoder)
