"""
map.yaml: what a map says of itself.

The digests of the files beside it are in inventory.py, what they hold in place_map.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
import hashlib
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core import fields
from vpr_ros.core import plain_yaml
from vpr_ros.core.camera import Camera
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import ModelMismatchError
from vpr_ros.core.geodesy import Datum
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.inventory import Inventory
from vpr_ros.maps.landmarks import LandmarkIdentity
import yaml

if TYPE_CHECKING:
    from vpr_ros.core.signatures import TrustedKeys
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.encoding.projection import Projection
    from vpr_ros.maps.arrays import Layout

MANIFEST = 'map.yaml'
"""The file that makes a directory a map."""

MAP = 'map'
"""What a signature of a map.yaml says that it is of."""

FORMAT = 2
_PROJECTED = 3  # format of a map with a projection, which earlier versions must not read
_OLDER = (1,)  # without `recall` and `spots`

_MOST_BYTES = 1 << 18  # of map.yaml
_MOST_SESSIONS = 4096
_LARGEST = 1 << 16  # dimensions of a descriptor, pixels of a side
_LONGEST_PATH = 4096
_LONGEST_SPACING = 10_000.0  # m
_MOST_VALUES = 1 << 22  # of a projection


@dataclass(frozen=True)
class Session:
    """One drive of a map: where its frames came from and in which condition."""

    source: str
    condition: str = 'unknown'

    @classmethod
    def from_dict(cls, raw: Any) -> Session:
        """Return what map.yaml holds; raise KeyError or ValueError for what is none."""
        raw = fields.mapping(raw, 'a session', cls.__annotations__)
        return cls(fields.text(raw['source'], 'source', _LONGEST_PATH),
                   fields.text(raw.get('condition', cls.condition), 'condition', _LONGEST_PATH))


@dataclass(frozen=True)
class ModelIdentity:
    """What a map must know of the model that made its descriptors."""

    sha256: str
    name: str
    dimension: int
    input_height: int
    input_width: int

    @classmethod
    def of(cls, encoder: Encoder) -> ModelIdentity:
        """Return the identity of an encoder's model."""
        return cls(encoder.digest, encoder.path.name, encoder.dimension, encoder.height,
                   encoder.width)

    @classmethod
    def from_dict(cls, raw: Any) -> ModelIdentity:
        """Return what map.yaml holds; raise KeyError or ValueError for what is none."""
        raw = fields.mapping(raw, 'model', cls.__annotations__)
        return cls(fields.sha256_digits(raw['sha256'], 'sha256 of the model'),
                   fields.text(raw['name'], 'name of the model', _LONGEST_PATH),
                   fields.integer(raw['dimension'], 'dimension', 1, _LARGEST),
                   fields.integer(raw['input_height'], 'input_height', 1, _LARGEST),
                   fields.integer(raw['input_width'], 'input_width', 1, _LARGEST))


@dataclass(frozen=True)
class ProjectionShape:
    """
    What a map must know of its projection before it reads it: rows R and columns A.

    `beside_model` says that descriptors are those of the model and the projection's together.
    """

    rows: int
    columns: int
    beside_model: bool

    @classmethod
    def of(cls, projection: Projection) -> ProjectionShape:
        """Return the shape of a projection."""
        rows, columns = projection.matrix.shape
        return cls(rows, columns, projection.beside_model)

    @property
    def layout(self) -> Layout:
        """Return the dtype and the shape of its matrix."""
        return np.float16, (self.rows, self.columns)

    @classmethod
    def from_dict(cls, raw: Any) -> ProjectionShape:
        """Return what map.yaml holds; raise KeyError or ValueError for what is none."""
        raw = fields.mapping(raw, 'projection', cls.__annotations__)
        rows = fields.integer(raw['rows'], 'rows of the projection', 1, _LARGEST)
        if not isinstance(raw['beside_model'], bool):
            raise ValueError('beside_model of the projection is neither true nor false')
        return cls(rows, fields.integer(raw['columns'], 'columns of the projection', 1,
                                        _MOST_VALUES // rows), raw['beside_model'])


@dataclass(frozen=True)
class Manifest:
    """
    The contents of map.yaml but for its inventory, which follows from the files.

    `index` is a kind of index, or 'auto' for a map that is still to be built; `recall` the share
    of queries for which it finds what an exact one finds, measured when the map was built
    (index_choice.py), None where it was not. `datum` is the origin of frame_id, for a map from the
    fixes of a GPS; `cameras` are the different ones of its sessions. `projection` is None where
    the descriptors are the model's own, `landmarks` for a map without.
    """

    model: ModelIdentity
    sessions: tuple[Session, ...]
    frame_id: str = 'map'
    child_frame_id: str = 'base_link'
    spacing: float = 0.0
    index: str = 'flat'
    calibration: Calibration = field(default_factory=Calibration)
    recall: float | None = None
    datum: Datum | None = None
    cameras: tuple[Camera, ...] = ()
    projection: ProjectionShape | None = None
    landmarks: LandmarkIdentity | None = None

    @property
    def dimension(self) -> int:
        """Return the dimension of the map's descriptors."""
        if self.projection is None:
            return self.model.dimension
        own = self.model.dimension if self.projection.beside_model else 0
        return self.projection.rows + own

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Manifest:
        """Return what map.yaml holds; raise KeyError, TypeError or ValueError for invalid ones."""
        recall, datum = raw.get('recall'), raw.get('datum')
        projection, landmarks = raw.get('projection'), raw.get('landmarks')
        if raw['index'] not in defaults.INDEX_KINDS:
            raise ValueError(f"index is {fields.text(raw['index'], 'index')}, which is not known")
        return cls(
            model=ModelIdentity.from_dict(raw['model']),
            sessions=tuple(Session.from_dict(session) for session
                           in fields.items(raw['sessions'], 'sessions', _MOST_SESSIONS)),
            frame_id=fields.text(raw['frame_id'], 'frame_id', shortest=1).lstrip('/'),
            child_frame_id=fields.text(raw['child_frame_id'], 'child_frame_id', shortest=1),
            spacing=fields.number(raw['spacing'], 'spacing', 0, _LONGEST_SPACING),
            index=raw['index'],
            calibration=Calibration.from_dict(raw['calibration']),
            recall=None if recall is None else fields.number(recall, 'recall', 0, 1),
            datum=None if datum is None else Datum.from_dict(datum),
            cameras=tuple(Camera.from_dict(camera) for camera
                          in fields.items(raw.get('cameras', ()), 'cameras', _MOST_SESSIONS)),
            projection=None if projection is None else ProjectionShape.from_dict(projection),
            landmarks=None if landmarks is None else LandmarkIdentity.from_dict(landmarks))

    def as_dict(self) -> dict[str, Any]:
        """Return what map.yaml keeps of it."""
        return {**asdict(self),
                'model': {**asdict(self.model), 'name': fields.printable(self.model.name)},
                'sessions': [{name: fields.printable(value) for name, value
                              in asdict(session).items()} for session in self.sessions],
                'calibration': self.calibration.as_dict(),
                'datum': self.datum and self.datum._asdict(),
                'cameras': [camera.as_dict() for camera in self.cameras],
                'landmarks': self.landmarks and self.landmarks.as_dict()}

    def check_model(self, encoder: Encoder, directory: str | Path | None = None) -> None:
        """Raise ModelMismatchError, with the remedy, unless the encoder's model made the map."""
        same = encoder.metadata.get('same_as', '').split()  # other files of this very network
        if self.model.sha256 not in (encoder.digest, *same):
            raise ModelMismatchError(
                f'{directory or "the map"} was built with the model {self.model.name} '
                f'{self.model.sha256[:12]}, not with {encoder.path} {encoder.digest[:12]}: use '
                'that model, or rebuild the map with `vpr build-map SOURCE '
                f'--model {encoder.path} --output {directory or "MAP"} --overwrite`')


def read_manifest(directory: Path, trusted: TrustedKeys | None = None
                  ) -> tuple[Manifest, Inventory]:
    """
    Read the map.yaml of a map's directory, which has to be signed if there are `trusted` keys.

    Raises FileNotFoundError when there is no such directory, MapError when it has no map.yaml, or
    one that is damaged or of another format, and SignatureError.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f'{directory}: no such map directory')
    path = directory / MANIFEST
    if not path.is_file():
        raise MapError(f'{directory} is not a map: it has no {MANIFEST}')
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f'it has more than {_MOST_BYTES} bytes')
        content = path.read_bytes()
        if trusted is not None:
            trusted.check(path, MAP, hashlib.sha256(content).hexdigest())
        raw = fields.mapping(plain_yaml.load(content.decode('utf-8')), 'its content')
        made = fields.integer(raw['format'], 'format', 0, 9999)
        if made not in (FORMAT, _PROJECTED, *_OLDER):
            raise MapError(f'{path} has format {made}, this version reads {FORMAT} and '
                           f'{_PROJECTED}: build the map again')
        return Manifest.from_dict(raw), Inventory.from_dict(raw)
    except (KeyError, TypeError, ValueError) as error:
        reason = f'no {error}' if isinstance(error, KeyError) else error
        raise MapError(f'{path} is damaged ({reason}): build the map again') from error


def write_manifest(directory: Path, manifest: Manifest, inventory: Inventory) -> None:
    """Write the map.yaml of a map's directory, into the temporary one that becomes it."""
    contents = {'format': FORMAT if manifest.projection is None else _PROJECTED,
                **manifest.as_dict(), **asdict(inventory)}
    (directory / MANIFEST).write_text(yaml.safe_dump(contents, sort_keys=False,
                                                     allow_unicode=True), encoding='utf-8')
