"""
map.yaml: what a map says of itself.

The digests of the files beside it are in inventory.py, what they hold in place_map.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
import math
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

from vpr_ros.core.camera import Camera
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import ModelMismatchError
from vpr_ros.core.geodesy import Datum
from vpr_ros.maps.calibration import Calibration
from vpr_ros.maps.inventory import Inventory
import yaml

if TYPE_CHECKING:
    from vpr_ros.encoding.encoder import Encoder

MANIFEST = 'map.yaml'
"""The file that makes a directory a map."""

FORMAT = 2
_OLDER = (1,)  # without `recall` and `spots`


@dataclass(frozen=True)
class Session:
    """One drive of a map: where its frames came from and in which condition."""

    source: str
    condition: str = 'unknown'


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


@dataclass(frozen=True)
class Manifest:
    """
    The contents of map.yaml but for its inventory, which follows from the files.

    `index` is a kind of index, or 'auto' for a map that is still to be built; `recall` the share
    of queries for which it finds what an exact one finds, measured when the map was built
    (index_choice.py), None where it was not. `datum` is the origin of frame_id, for a map from the
    fixes of a GPS; `cameras` are the different ones of its sessions.
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

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Manifest:
        """Return what map.yaml holds; raise KeyError, TypeError or ValueError for invalid ones."""
        recall, spacing, datum = raw.get('recall'), float(raw['spacing']), raw.get('datum')
        if not 0 <= spacing < math.inf:
            raise ValueError(f'spacing {spacing}')
        return cls(
            model=ModelIdentity(**{**raw['model'], 'sha256': str(raw['model']['sha256'])}),
            sessions=tuple(Session(**session) for session in raw['sessions']),
            frame_id=str(raw['frame_id']).lstrip('/'), child_frame_id=str(raw['child_frame_id']),
            spacing=spacing, index=str(raw['index']),
            calibration=Calibration.from_dict(raw['calibration']),
            recall=None if recall is None else float(recall),
            datum=None if datum is None else Datum(**datum),
            cameras=tuple(map(Camera.from_dict, raw.get('cameras', ()))))

    def as_dict(self) -> dict[str, Any]:
        """Return what map.yaml keeps of it."""
        return {**asdict(self), 'sessions': [asdict(session) for session in self.sessions],
                'calibration': self.calibration.as_dict(),
                'datum': self.datum and self.datum._asdict(),
                'cameras': [camera.as_dict() for camera in self.cameras]}

    def check_model(self, encoder: Encoder, directory: str | Path | None = None) -> None:
        """Raise ModelMismatchError, with the remedy, unless the encoder's model made the map."""
        same = encoder.metadata.get('same_as', '').split()  # other files of this very network
        if self.model.sha256 not in (encoder.digest, *same):
            raise ModelMismatchError(
                f'{directory or "the map"} was built with the model {self.model.name} '
                f'{self.model.sha256[:12]}, not with {encoder.path} {encoder.digest[:12]}: use '
                'that model, or rebuild the map with `vpr build-map SOURCE '
                f'--model {encoder.path} --output {directory or "MAP"} --overwrite`')


def read_manifest(directory: Path) -> tuple[Manifest, Inventory]:
    """
    Read the map.yaml of a map's directory.

    Raises FileNotFoundError when there is no such directory, and MapError when it has no map.yaml,
    or one that is damaged or of another format.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f'{directory}: no such map directory')
    path = directory / MANIFEST
    if not path.is_file():
        raise MapError(f'{directory} is not a map: it has no {MANIFEST}')
    try:
        raw = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, ValueError) as error:  # a date that is none is a ValueError
        raise MapError(f'{path} is damaged: build the map again') from error
    if not isinstance(raw, dict) or 'format' not in raw:
        raise MapError(f'{path} is damaged: build the map again')
    if raw['format'] not in (FORMAT, *_OLDER):
        raise MapError(f'{path} has format {raw["format"]}, this version reads {FORMAT}: '
                       'build the map again')
    try:
        return Manifest.from_dict(raw), Inventory(int(raw['places']), dict(raw['sha256']),
                                                  dict(raw.get('spots', {})))
    except (KeyError, TypeError, ValueError) as error:
        raise MapError(f'{path} is damaged ({error!r}): build the map again') from error


def write_manifest(directory: Path, manifest: Manifest, inventory: Inventory) -> None:
    """Write the map.yaml of a map's directory, into the temporary one that becomes it."""
    contents = {'format': FORMAT, **manifest.as_dict(), **asdict(inventory)}
    (directory / MANIFEST).write_text(yaml.safe_dump(contents, sort_keys=False,
                                                     allow_unicode=True), encoding='utf-8')
