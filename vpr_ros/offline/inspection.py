"""Inspect what a map, a model or a bag holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.bag import Bag
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.trust import signed_by

if TYPE_CHECKING:
    from collections.abc import Iterator


def inspect(path: str | Path, *, verify: bool = False) -> Iterator[tuple[str, object]]:
    """
    Yield what a map, a model or a bag holds, as pairs of a name and a value.

    With `verify` every byte of a map is checked first, whatever its size. Raises
    FileNotFoundError, or what Encoder, PlaceMap or Bag raise for what `path` seems to be.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    if path.suffix == '.onnx':
        return _model(path)
    if (path / 'map.yaml').exists():
        return _map(path, verify)
    return _bag(path)


def _model(path: Path) -> Iterator[tuple[str, object]]:
    encoder = Encoder(path)
    yield 'model', path
    yield 'sha256', encoder.digest
    yield 'signed', signed_by(path)
    yield 'input', f'{encoder.width}x{encoder.height} RGB'
    yield 'descriptor', f'{encoder.dimension} dimensions'
    yield 'runs on', encoder.provider
    yield from sorted(encoder.metadata.items())


def _map(path: Path, verify: bool) -> Iterator[tuple[str, object]]:
    place_map = PlaceMap.load(path, verify=verify)
    manifest = place_map.manifest
    low, high = place_map.poses[:, :3].min(axis=0), place_map.poses[:, :3].max(axis=0)
    steps = place_map.steps()
    yield 'map', path
    yield 'places', len(place_map)
    yield 'frames', f'{manifest.child_frame_id} in {manifest.frame_id}'
    if manifest.datum:
        yield 'datum', 'latitude {:.7f}, longitude {:.7f}, altitude {:.2f} m'.format(
            *manifest.datum)
    yield 'extent', ' x '.join(f'{side:.1f}' for side in high - low) + ' m'
    if len(steps):
        yield 'spacing', (f'{manifest.spacing} m requested, {np.median(steps):.2f} m median, '
                          f'{steps.max():.2f} m at most')
    recall = '' if manifest.index == 'flat' or manifest.recall is None else (
        f', finds the exact nearest neighbour for {manifest.recall:.1%} of queries')
    yield 'index', f'{manifest.index}, {manifest.dimension} dimensions{recall}'
    yield 'model', f'{manifest.model.name} {manifest.model.sha256}'
    if shape := manifest.projection:
        beside = " beside the model's descriptor" if shape.beside_model else ''
        yield 'projection', f'{shape.rows} of {shape.columns} directions{beside}'
    for number, session in enumerate(manifest.sessions):
        count = int((place_map.sessions == number).sum())
        yield f'session {number}', f'{session.source} ({session.condition}), {count} places'
    for camera in manifest.cameras:
        yield 'camera', camera
    yield 'signed', signed_by(path)
    yield 'calibration', manifest.calibration.origin
    found = manifest.landmarks
    yield 'landmarks', 'no' if found is None else (
        f'{found.count}, {found.count / len(place_map):.0f} a place, of {found.features}')
    yield 'thumbnails', 'no' if place_map.thumbnail_digests is None else 'yes'


def _bag(path: Path) -> Iterator[tuple[str, object]]:
    with Bag(path) as bag:
        yield 'bag', path
        yield 'duration', f'{bag.duration:.2f} s'
        yield 'messages', bag.message_count
        for topic, kind in bag.topics.items():
            yield str(bag.count(topic)), f'{topic}  {kind}'
