"""The first model: an unlearned backbone; statistics, centres and whitening of street pictures.

Nothing is downloaded and nothing is learned by gradients. The bundled model until a trained one
takes its place.
"""

from __future__ import annotations

from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm
from vpr_ros.images import resize
from vpr_ros.street import CONDITIONS
from vpr_ros.street import drive
from vpr_ros.street import Town
from vpr_ros.training.export import export
from vpr_ros.training.initialise import calibrate_batch_norm
from vpr_ros.training.initialise import centre_per_drive
from vpr_ros.training.initialise import fit_centres
from vpr_ros.training.initialise import pca_whitening
from vpr_ros.training.initialise import randomise
from vpr_ros.training.initialise import set_whitening
from vpr_ros.training.initialise import vlad_vectors
from vpr_ros.training.model import PlaceNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from vpr_ros.training.export import Parity

FIRST_TRAINING_TOWN = 100
"""Town seeds below this one belong to tests and demos: nothing is ever fitted to them."""

TOWNS = tuple(range(FIRST_TRAINING_TOWN, FIRST_TRAINING_TOWN + 10))
SHRINKAGE = 0.1
SPEED = 8.0
"""Speed of the drives, m/s: at the one frame a second that is taken, metres between pictures."""


class StreetPictures(NamedTuple):
    """Pictures uint8 (N,H,W,3) RGB, and the number (N,) of the drive that each comes from."""

    images: NDArray[np.uint8]
    drives: NDArray[np.int64]


def make_first_model(output: str | Path, *, seed: int = 0, towns: Sequence[int] = TOWNS,
                     conditions: Sequence[str] = CONDITIONS, length: float | None = None,
                     clusters: int = 64, dimension: int = 256, height: int = 96,
                     width: int = 128) -> Parity:
    """Make the first model, write it to `output` (.onnx), and return the parity of its export.

    Drives every town of the seeds `towns` once under each of `conditions`, `length` metres each
    (None: the whole route). The input is small on purpose: filters that nobody taught tell places
    apart by large shapes, and a small picture shows them those whole. Raises ValueError when a
    town is one of those kept for tests, or when the pictures are too few for `dimension`;
    ModelError when the export is not exact.
    """
    pictures = street_pictures(towns, conditions, seed=seed, length=length, height=height,
                               width=width)
    some = pictures.images[::4]
    network = PlaceNetwork(clusters, dimension)
    randomise(network.backbone, seed)
    calibrate_batch_norm(network, some)
    fit_centres(network, some, seed)
    # A mirrored street is one more street, at a fraction of the cost of drawing it.
    vectors = np.concatenate([vlad_vectors(network, pictures.images),
                              vlad_vectors(network, pictures.images[:, :, ::-1])])
    drives = np.concatenate([pictures.drives, pictures.drives])
    matrix = pca_whitening(centre_per_drive(vectors, drives), dimension, shrinkage=SHRINKAGE)
    set_whitening(network, matrix, vectors.mean(axis=0))
    metadata = {
        'backbone': 'resnet18 to layer3, Gabor and random filters, not trained',
        'aggregation': f'netvlad-{clusters}, pca-whitened',
        'training': f'fitted to {len(pictures.drives)} street pictures, towns {min(towns)} to '
                    f'{max(towns)}, {", ".join(conditions)}; seed {seed}',
        'license': 'Apache-2.0',
    }
    return export(network, output, height=height, width=width, metadata=metadata,
                  pictures=pictures.images[::max(1, len(pictures.drives) // 16)])


def street_pictures(towns: Sequence[int], conditions: Sequence[str], *, seed: int,
                    length: float | None, height: int, width: int) -> StreetPictures:
    """Drive through `towns` and return what the camera saw, one frame a second.

    Drawn at the camera's own size and scaled as on the robot, so that its noise is scaled too.
    Raises ValueError when a town's seed is below FIRST_TRAINING_TOWN.
    """
    if not towns or not conditions or min(towns) < FIRST_TRAINING_TOWN:
        raise ValueError(f'a model needs a condition, and towns of seed {FIRST_TRAINING_TOWN} or '
                         'more: those below are kept for tests and demos')
    random = np.random.default_rng(seed)
    images: list[NDArray[np.uint8]] = []
    drives: list[int] = []
    for town_seed in tqdm(towns, desc='driving', unit='town'):
        town = Town(town_seed)
        for condition in conditions:
            number = 1 + max(drives, default=-1)
            for frame in drive(town, condition=condition, seed=int(random.integers(2**31)),
                               lateral_offset=float(random.uniform(-1.0, 1.0)), speed=SPEED,
                               rate=1.0, length=length):
                images.append(resize(frame.image, height, width))
                drives.append(number)
    return StreetPictures(np.stack(images), np.array(drives, np.int64))
