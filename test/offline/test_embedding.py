"""Recall between drives and layouts in the plane, on descriptors where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import small_drive
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.io.frames import Source
from vpr_ros.io.sources import open_source
from vpr_ros.offline.embedding import centred_descriptors
from vpr_ros.offline.embedding import cross_drive_recall
from vpr_ros.offline.embedding import describe_drive
from vpr_ros.offline.embedding import DescribedDrive
from vpr_ros.offline.embedding import draw_embedding
from vpr_ros.offline.embedding import embed
from vpr_ros.offline.embedding import layout_recall

DIMENSION = 32


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def drive(label, vectors, x=None):
    x = np.arange(len(vectors), dtype=np.float64) * 10 if x is None else np.asarray(x, np.float64)
    return DescribedDrive(label, vectors, np.stack([x, 0 * x, 0 * x], axis=1), {})


@pytest.fixture
def views():
    return unit(np.random.default_rng(0).standard_normal((60, DIMENSION)))


def test_the_same_views_in_two_seasons_are_recalled(views):
    recall = cross_drive_recall([drive('winter', views), drive('spring', views)], 5)
    assert (recall.frames, recall.share, recall.centred) == (120, 1.0, 1.0)
    assert recall.chance == pytest.approx(1 / 60)


def test_views_of_other_places_are_not(views):
    mixed = views[np.random.default_rng(1).permutation(60)]
    recall = cross_drive_recall([drive('winter', views), drive('spring', mixed)], 5)
    assert recall.share < 0.1


def test_only_frames_near_another_drive_count(views):
    far = np.where(np.arange(60) < 30, np.arange(60) * 10, 10_000 + np.arange(60) * 10)
    recall = cross_drive_recall([drive('winter', views), drive('spring', views, far)], 5)
    assert recall.frames == 60
    assert recall.share == 1.0


def test_centring_removes_the_shift_of_a_season(views):
    # In spring every view looks a little like place 7.
    drives = [drive('winter', views), drive('spring', unit(views + 3 * views[7]))]
    recall = cross_drive_recall(drives, 5)
    assert recall.share < 0.6
    assert recall.centred > 0.95
    np.testing.assert_allclose(np.linalg.norm(centred_descriptors(drives), axis=1), 1, atol=1e-5)


def test_descriptors_of_a_map_are_already_centred(views):
    maps = [DescribedDrive('winter', views, np.arange(180.0).reshape(60, 3) * 10, {}, True)] * 2
    recall = cross_drive_recall(maps, 5)
    assert recall.share is None
    assert recall.centred == 1.0
    np.testing.assert_array_equal(centred_descriptors(maps), np.concatenate([views, views]))


def test_a_layout_is_measured_as_the_descriptors_are(views):
    drives = [drive('winter', views), drive('spring', views)]
    right = np.tile(np.stack([np.arange(60.0), np.zeros(60)], axis=1), (2, 1))
    assert layout_recall(drives, right, 5) == 1.0
    wrong = right.copy()
    wrong[60:] = wrong[60:][np.random.default_rng(0).permutation(60)]
    assert layout_recall(drives, wrong, 5) < 0.1


def test_at_most_so_many_frames_are_described(tmp_path, encoder):
    with open_source(small_drive.write_bag(tmp_path / 'drive')) as source:
        described = describe_drive(source, encoder, 'winter', 4, 2)
    assert described.positions[:, 0].tolist() == [0, 13, 26, 39]
    assert sorted(described.images) == [0, 3]


def test_drives_that_cannot_be_compared_are_refused(encoder, views):
    with pytest.raises(VprError, match='one drive alone'):
        cross_drive_recall([drive('winter', views)], 5)
    with pytest.raises(VprError, match='no drive comes within 5 m of another'):
        cross_drive_recall([drive('winter', views),
                            drive('spring', views, np.arange(60) + 1e6)], 5)
    with pytest.raises(VprError, match='3 frames are too few'):
        embed(views[:3], 'tsne')
    with pytest.raises(SourceError, match='empty has no frame with a pose and an image'):
        describe_drive(Source('empty', [], 0), encoder, 'winter', 10, 1)


@pytest.mark.parametrize(('method', 'library'), [('tsne', 'sklearn'), ('umap', 'umap')])
def test_a_layout_keeps_neighbours_and_is_reproducible(method, library, tmp_path):
    pytest.importorskip(library, reason=f'{library} is not installed')
    # A loop: its neighbours are known.
    angle = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    loop = unit(np.stack([np.cos(angle), np.sin(angle), np.cos(2 * angle)], axis=1))
    points, trust = embed(loop, method, seed=3)
    assert points.shape == (80, 2)
    assert trust > 0.9
    again, _ = embed(loop, method, seed=3)
    np.testing.assert_array_equal(points, again)
    draw_embedding(tmp_path / 'e.png', [drive('a', loop[:40]), drive('b', loop[40:])],
                   {'raw': points}, 5, 't')
    assert (tmp_path / 'e.png').read_bytes().startswith(b'\x89PNG')
