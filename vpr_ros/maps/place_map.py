"""
PlaceMap: the descriptors and poses of a mapped site, on disk and in search.

A map is a directory: `map.yaml` (what it is, and the SHA-256 of the rest), `index.faiss` (the
descriptors, each centred on its session's mean and renormalised; `vectors.npy`, where they stay
on disk), `places.npz` (stamps, poses, sessions), `projection.npy` where the map has one, and, if
wanted, `thumbnails/` and landmarks (landmarks.py). How maps are made from bags is in
offline/build_map.py, how places are found in index.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace
import hashlib
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import faiss
import numpy as np
from vpr_ros.core import images
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import MapError
from vpr_ros.core.files import read_inside
from vpr_ros.core.files import whole_directory
from vpr_ros.core.poses import checked
from vpr_ros.core.poses import distance
from vpr_ros.encoding.projection import Projection
from vpr_ros.maps import arrays
from vpr_ros.maps.index import search
from vpr_ros.maps.index_choice import fit_index
from vpr_ros.maps.index_file import check_index_file
from vpr_ros.maps.index_file import check_norms
from vpr_ros.maps.index_file import most_bytes
from vpr_ros.maps.index_file import MOST_SIMILAR
from vpr_ros.maps.inventory import Inventory
from vpr_ros.maps.landmarks import DESCRIPTORS
from vpr_ros.maps.landmarks import Landmarks
from vpr_ros.maps.landmarks import POINTS
from vpr_ros.maps.manifest import MANIFEST
from vpr_ros.maps.manifest import ProjectionShape
from vpr_ros.maps.manifest import read_manifest
from vpr_ros.maps.manifest import write_manifest
from vpr_ros.maps.reranked import open_vectors
from vpr_ros.maps.reranked import Reranked
from vpr_ros.maps.reranked import save_vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.core.signatures import TrustedKeys
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.maps.arrays import Layout
    from vpr_ros.maps.calibration import Calibration
    from vpr_ros.maps.manifest import Manifest

_INDEX = 'index.faiss'
_PLACES = 'places.npz'
_VECTORS = 'vectors.npy'
_PROJECTION = 'projection.npy'
_THUMBNAILS = 'thumbnails'
_LARGEST_THUMBNAIL = 1 << 24  # bytes


@dataclass(frozen=True)
class PlaceMap:
    """
    N places: where each is, and how it looks, ready to be searched.

    index holds N descriptors of D float32, centred on their session's mean and renormalised;
    stamps int64 (N,) ns; poses float64 (N,7) of child_frame_id in frame_id; sessions int32 (N,)
    indices into manifest.sessions; means float32 (S,D); thumbnails are N JPEG files
    in memory, the directory that holds them, or none; thumbnail_digests uint8 (N,32), their
    SHA-256. `projection` makes the descriptors; None where they are the model's own. `landmarks`
    are for metric poses, or None.
    """

    index: Any
    stamps: NDArray[np.int64]
    poses: NDArray[np.float64]
    sessions: NDArray[np.int32]
    means: NDArray[np.float32]
    manifest: Manifest
    thumbnails: Sequence[bytes] | Path = ()
    thumbnail_digests: NDArray[np.uint8] | None = None
    projection: Projection | None = None
    landmarks: Landmarks | None = None

    def __len__(self) -> int:
        return len(self.poses)

    @classmethod
    def build(cls, descriptors: NDArray[np.float32], stamps: NDArray[np.int64],
              poses: NDArray[np.float64], sessions: NDArray[np.int32], manifest: Manifest,
              thumbnails: Sequence[bytes] = (), projection: Projection | None = None) -> PlaceMap:
        """
        Make a map of N places from descriptors float32 (N,D) of unit norm.

        They are the model's own, or made by `projection`.
        Where the manifest's index is 'auto', index_choice.py chooses one. Raises ValueError for no
        places, lengths, sessions or dimensions that disagree, an unknown index kind, or too few
        places for the kind.
        """
        count = len(descriptors)
        if count == 0:
            raise ValueError('a map needs at least one place')
        if not np.isin(sessions, np.arange(len(manifest.sessions))).all():
            raise ValueError(f'sessions must be numbers from 0 to {len(manifest.sessions) - 1}')
        if not len(stamps) == len(poses) == len(sessions) == count:
            raise ValueError('descriptors, stamps, poses and sessions differ in length')
        if thumbnails and len(thumbnails) != count:
            raise ValueError(f'{len(thumbnails)} thumbnails for {count} places')
        manifest = replace(manifest,
                           projection=None if projection is None
                           else ProjectionShape.of(projection))
        if descriptors.shape[1] != manifest.dimension:
            raise ValueError(f'descriptors have {descriptors.shape[1]} dimensions, the model '
                             f'{"and the projection " if projection else ""}{manifest.dimension}')
        centred, means = _centre(descriptors, sessions, len(manifest.sessions))
        digests = np.array([np.frombuffer(hashlib.sha256(jpeg).digest(), np.uint8)
                            for jpeg in thumbnails]).reshape(-1, 32) if thumbnails else None
        index, kind, recall = fit_index(centred, manifest.index)
        return cls(index, np.asarray(stamps, np.int64), checked(poses),
                   np.asarray(sessions, np.int32), means,
                   replace(manifest, index=kind, recall=recall),
                   thumbnails, digests, projection)

    @property
    def mean(self) -> NDArray[np.float32]:
        """Return the mean descriptor, float32 (D,), of all places before centring."""
        share = np.bincount(self.sessions, minlength=len(self.means)) / len(self)
        mean: NDArray[np.float32] = (share @ self.means).astype(np.float32)
        return mean

    def steps(self) -> NDArray[np.float64]:
        """Return the distances in metres from each place to the next of its session, (M,)."""
        along = self.sessions[1:] == self.sessions[:-1]
        return distance(self.poses[1:][along], self.poses[:-1][along])

    def search(self, descriptors: NDArray[np.float32], k: int
               ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """
        Return the k most similar places of each centred descriptor (Q,D), best first.

        Gives cosine similarities float32 (Q,k) and places int64 (Q,k). k is cut to N; where an
        approximate index finds fewer, or one that was tampered with gives what is no similarity or
        place, place 0 stands in with similarity -1.
        """
        similarity, places = search(self.index, descriptors, min(k, len(self)))
        found = (places >= 0) & (places < len(self)) & (np.abs(similarity) <= MOST_SIMILAR)
        return np.where(found, similarity, np.float32(-1)), np.where(found, places, 0)

    def vectors(self, places: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """
        Return the centred descriptors float32 (M,D) of some places, or of all of them.

        A compressed index returns them with a loss.
        """
        if places is None:
            places = np.arange(len(self))
        vectors: NDArray[np.float32] = self.index.reconstruct_batch(places)
        return vectors

    def select(self, places: NDArray[np.int64]) -> PlaceMap:
        """Return a map of only some places, in memory, with an exact index and no thumbnails."""
        index = faiss.IndexFlatIP(self.index.d)
        index.add(self.vectors(places))
        return replace(self, index=index, stamps=self.stamps[places], poses=self.poses[places],
                       sessions=self.sessions[places], thumbnails=(), thumbnail_digests=None,
                       landmarks=None, manifest=replace(
                           self.manifest, index='flat', recall=1.0, landmarks=None))

    def uncentred(self) -> PlaceMap:
        """
        Return the map, in memory, with its descriptors as the model gave them, and zero means.

        They are compared with descriptors that are not centred, either.
        """
        centred, means = self.vectors(), self.means[self.sessions]
        # The raw descriptor is the point of unit norm on the ray from the mean.
        along = np.einsum('nd,nd->n', centred, means)
        beyond = np.maximum(along ** 2 + 1 - np.einsum('nd,nd->n', means, means), 0)
        raw = means + (np.sqrt(beyond) - along)[:, None] * centred
        index = faiss.IndexFlatIP(self.index.d)
        index.add(centre(raw, np.zeros(self.index.d, np.float32)))
        return replace(self, index=index, means=np.zeros_like(self.means),
                       manifest=replace(self.manifest, index='flat', recall=1.0))

    def calibrated(self, calibration: Calibration) -> PlaceMap:
        """Return the same map with another calibration."""
        return replace(self, manifest=replace(self.manifest, calibration=calibration))

    def with_landmarks(self, landmarks: Landmarks) -> PlaceMap:
        """Return the same map with landmarks, of all its places."""
        return replace(self, landmarks=landmarks,
                       manifest=replace(self.manifest, landmarks=landmarks.identity))

    def thumbnail(self, place: int) -> NDArray[np.uint8] | None:
        """
        Return the image of a place, uint8 (h,w,3) RGB, or None when the map has none.

        Raises MapError when the file is gone or is not what the map was written with.
        """
        if self.thumbnail_digests is None:
            return None
        name = f'the thumbnail of place {place}'
        try:
            jpeg = self._jpeg(place)
        except OSError as error:
            raise MapError(f'{name} cannot be read: {error}') from error
        if hashlib.sha256(jpeg).digest() != self.thumbnail_digests[place].tobytes():
            raise MapError(f'{name} was changed after the map was written')
        return images.decode(jpeg, name)

    def _jpeg(self, place: int) -> bytes:
        if isinstance(self.thumbnails, Path):
            return read_inside(self.thumbnails, _thumbnail_name(place), _LARGEST_THUMBNAIL)
        return self.thumbnails[place]

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """
        Write the map to the directory `path`: whole, or not at all.

        Raises VprError when `path` exists and `overwrite` is false, OSError on a full disk.
        """
        with whole_directory(path, MANIFEST, overwrite=overwrite) as part:
            # FAISS's own writer does not notice a disk that is full at the last block.
            index = self.index
            sampled = []
            if isinstance(index, Reranked):
                save_vectors(index, part / _VECTORS)
                sampled, index = [_VECTORS], index.codes
            (part / _INDEX).write_bytes(faiss.serialize_index(index).data)
            kept: dict[str, NDArray[Any]] = {
                'stamps': self.stamps, 'poses': self.poses, 'sessions': self.sessions,
                'means': self.means}
            if self.thumbnail_digests is not None:
                kept['thumbnails'] = self.thumbnail_digests
                (part / _THUMBNAILS).mkdir()
                for place in range(len(self)):
                    (part / _THUMBNAILS / _thumbnail_name(place)).write_bytes(self._jpeg(place))
            if self.landmarks is not None:
                kept['landmarks'] = self.landmarks.starts
                if self.landmarks.errors is not None:
                    kept['landmark_errors'] = self.landmarks.errors
                self.landmarks.save(part)
                sampled += [POINTS, DESCRIPTORS]
            np.savez(part / _PLACES, **kept)  # type: ignore[arg-type]
            names = [_INDEX, _PLACES]
            if self.projection is not None:
                np.save(part / _PROJECTION, np.ascontiguousarray(self.projection.matrix))
                names.append(_PROJECTION)
            write_manifest(part, self.manifest, Inventory.of(part, len(self), names, sampled))

    @classmethod
    def load(cls, path: str | Path, encoder: Encoder | None = None, *, verify: bool = False,
             trusted: TrustedKeys | None = None) -> PlaceMap:
        """
        Read a map, checking its digests, counts and dimensions.

        Of vectors that stay on disk, which may be gigabytes, only the size and spots all over the
        file are checked, with `verify` or `trusted` every byte. With an encoder, also checks that
        its model made the map. Raises FileNotFoundError when there is no such directory, MapError
        when it is no whole map of this format, ModelMismatchError when another model made it, and
        SignatureError when no owner of a `trusted` key has signed it.
        """
        path = Path(path)
        manifest, inventory = read_manifest(path, trusted)
        if encoder is not None:
            manifest.check_model(encoder, path)
        count, dimension, drives = inventory.places, manifest.dimension, manifest.sessions
        layouts: dict[str, Layout] = {
            'stamps': (np.int64, (count,)), 'poses': (np.float64, (count, 7)),
            'sessions': (np.int32, (count,)), 'means': (np.float32, (len(drives), dimension)),
            'thumbnails': (np.uint8, (count, 32))}
        if manifest.landmarks is not None:
            layouts |= {'landmarks': (np.int64, (count + 1,)),
                        'landmark_errors': (np.float32, (count,))}
        on_disk, own = manifest.index == 'rerank', manifest.projection
        sizes = {_INDEX: most_bytes(count, dimension), _PLACES: arrays.most_bytes(layouts)}
        if own:
            sizes[_PROJECTION] = arrays.most_bytes({_PROJECTION: own.layout})
        sampled = manifest.landmarks.file_bytes() if manifest.landmarks is not None else {}
        if on_disk:
            sampled[_VECTORS] = arrays.row_file_bytes((np.float16, (count, dimension)))
        inventory.check(path, sizes, sampled, verify=verify or trusted is not None)
        try:
            found = arrays.read_arrays(path / _PLACES, layouts,
                                       optional=('thumbnails', 'landmark_errors'))
            poses, sessions, means = checked(found['poses']), found['sessions'], found['means']
            if not ((sessions >= 0) & (sessions < len(drives))).all():
                raise ValueError('a place is of a session that is none')
            if not (np.linalg.norm(means, axis=1) <= 1.001).all():
                raise ValueError('a mean is longer than what it is of')
            check_index_file(path / _INDEX, manifest.index, count, dimension)
            index: Any = faiss.read_index(str(path / _INDEX))
            if on_disk:
                index = open_vectors(index, path / _VECTORS)
            check_norms(index, manifest.index)
            projection = Projection(arrays.read_array(path / _PROJECTION, own.layout),
                                    own.beside_model) if own else None
            landmarks = None if manifest.landmarks is None else Landmarks.opened(
                path, manifest.landmarks, found['landmarks'], found.get('landmark_errors'))
        except Exception as error:  # FAISS, zipfile and numpy each raise their own
            raise MapError(f'{path} cannot be read ({first_line(error)}): build the map again'
                           ) from error
        if encoder is not None:
            encoder.projected(projection)
        digests = found.get('thumbnails')
        return cls(index, found['stamps'], poses, sessions, means, manifest,
                   () if digests is None else path / _THUMBNAILS, digests, projection, landmarks)


def centre(descriptors: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    Return descriptors (...,D) less `mean`, scaled to unit norm; zero where nothing is left.

    A season, the light or a camera moves all descriptors of a drive together; the difference to
    the drive's mean is what tells its places apart.
    """
    rest = descriptors - mean
    norm = np.linalg.norm(rest, axis=-1, keepdims=True)
    centred: NDArray[np.float32] = np.where(
        norm > 1e-6, rest / np.maximum(norm, 1e-6), 0).astype(np.float32)
    return centred


def _centre(descriptors: NDArray[np.float32], sessions: NDArray[np.int32], count: int
            ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each session's descriptors centred on its mean, and the means (S,D)."""
    means = np.zeros((count, descriptors.shape[1]), np.float32)
    centred = np.empty_like(descriptors, np.float32)
    for session in range(count):
        own = sessions == session
        if not own.any():
            raise ValueError(f'session {session} has no places')
        means[session] = descriptors[own].mean(axis=0)
        # Of places that all look the same nothing would be left: they keep what they are.
        if np.abs(descriptors[own] - means[session]).max() < 1e-5:
            means[session] = 0
        centred[own] = centre(descriptors[own], means[session])
    return centred, means


def _thumbnail_name(place: int) -> str:
    return f'{place:06d}.jpg'
