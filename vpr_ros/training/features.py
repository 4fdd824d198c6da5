"""
Training of a feature network on views that share points: experiment, batches, losses, the loop.

The network is in feature_network.py, the views are in feature_views.py.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from vpr_ros.core.errors import TrainingError
from vpr_ros.core.files import whole_file
from vpr_ros.training.augment import Dusk
from vpr_ros.training.augment import SensorNoise
from vpr_ros.training.feature_network import CELL
from vpr_ros.training.feature_network import FeatureNetwork
from vpr_ros.training.feature_views import read_views
from vpr_ros.training.feature_views import ViewOptions
from vpr_ros.training.metrics_log import MetricsLog

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from vpr_ros.training.experiment import FeatureExperiment
    from vpr_ros.training.experiment import FeatureTraining
    from vpr_ros.training.feature_views import Views

    Floats = NDArray[np.float64]

LAST = 'last.ckpt'
_SAVED_EVERY = 200
_FEWEST = 16            # points of a pair that it is worth learning from
_REPLACED = 0.15        # share of the pairs that are two views of one image


class Batch(NamedTuple):
    """
    B pairs: images (2B,1,H,W) in 0..1, the first ones of all pairs before the second ones.

    `cells` (2B,65,H/8,W/8) says where keypoints are. `points` (2B,N,2) are seen in both images of
    a pair, if `known` (B,N).
    """

    images: Tensor
    cells: Tensor
    points: Tensor
    known: Tensor


def train_features(experiment: FeatureExperiment, output: str | Path, *, resume: bool = False
                   ) -> Path:
    """
    Train, write the checkpoint and metrics.csv into the folder `output`, return the checkpoint.

    `resume` continues from it, to the same result as without interruption. Raises TrainingError
    for an invalid experiment, an output that holds another training, or a loss that is not finite.
    """
    options, path = experiment.training, Path(output, LAST)
    if resume != path.is_file():
        raise TrainingError(f'{path} does not exist: there is no training to resume' if resume else
                            f'{output} holds a training: choose another folder, or --resume')
    torch.manual_seed(options.seed)
    network = FeatureNetwork(experiment.dimension)
    sharpness = torch.nn.Parameter(torch.tensor(math.log(15.0)))
    optimiser = torch.optim.AdamW([*network.parameters(), sharpness], options.learning_rate,
                                  weight_decay=options.weight_decay)
    first = 0
    if resume:
        content = torch.load(path, weights_only=True)
        network.load_state_dict(content['state_dict'])
        optimiser.load_state_dict(content['optimiser'])
        sharpness.data = content['sharpness']
        first = int(content['step'])
    views = read_views(_view_options(experiment))
    log = MetricsLog(Path(output, 'metrics.csv'), first)
    sums: dict[str, float] = {}
    network.train()
    bar = tqdm(range(first, options.steps), initial=first, total=options.steps, unit='step',
               desc='training', disable=None)
    for step in bar:
        for group in optimiser.param_groups:
            group['lr'] = options.learning_rate * _rate(step, options)
        parts = losses(network, sharpness.exp().clamp(max=50), draw_batch(views, options, step))
        loss = parts['descriptors'] + parts['keypoints'] + parts['reliability']
        if not torch.isfinite(loss):
            raise TrainingError(f'the loss is {loss.item()} in step {step}: lower '
                                'training.learning_rate')
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        done = step + 1
        if done % _SAVED_EVERY == 0 or done == options.steps:
            count = (done - 1 - first) % _SAVED_EVERY + 1
            means = {name: value / count for name, value in sums.items()}
            sums.clear()
            log.log_metrics(means, done)
            bar.set_postfix({name: f'{value:.3f}' for name, value in means.items()})
            with whole_file(path) as part:
                torch.save({'experiment': experiment.as_dict(), 'step': done,
                            'state_dict': network.state_dict(), 'sharpness': sharpness.data,
                            'optimiser': optimiser.state_dict()}, part)
    return path


def _view_options(experiment: FeatureExperiment) -> ViewOptions:
    try:
        return ViewOptions(**experiment.views)
    except (TypeError, ValueError) as error:
        raise TrainingError(f'views: {error}') from error


def _rate(step: int, options: FeatureTraining) -> float:
    progress = (step + 1) / options.steps
    rising = min(1.0, progress / options.warmup) if options.warmup > 0 else 1.0
    return rising * 0.5 * (1 + math.cos(math.pi * progress))


def losses(network: FeatureNetwork, sharpness: Tensor, batch: Batch) -> dict[str, Tensor]:
    """
    Return each loss by its name, and `matched`: the share of points that are matched rightly.

    Descriptors: of all points of the other image, a point's own is the most alike (both ways).
    Keypoints: each cell says where its point is, or that it has none. Reliability: whether the
    point there is matched rightly.
    """
    logits, reliability, coarse, quarter = network(batch.images)
    found = network.describe(coarse, quarter, batch.points)
    one, two = found.chunk(2)                                           # (B,N,D)
    alike = sharpness * one @ two.transpose(1, 2)                       # (B,N,N)
    known = batch.known
    alike = alike.masked_fill(~(known[:, :, None] & known[:, None]), -1e4)
    own = torch.arange(known.shape[1]).expand(known.shape)
    describing = sum(functional.cross_entropy(each.flatten(0, 1)[known.flatten()],
                                              own.flatten()[known.flatten()])
                     for each in (alike, alike.transpose(1, 2)))
    right = (alike.argmax(dim=2) == own) & (alike.argmax(dim=1) == own)  # (B,N)
    trust = _at_cells(reliability, batch.points)                        # (2B,N)
    both = known.repeat(2, 1)
    trusting = functional.binary_cross_entropy_with_logits(
        trust[both], right.repeat(2, 1)[both].float())
    finding = -(batch.cells * logits.log_softmax(dim=1)).sum(dim=1).mean()
    return {'descriptors': describing / 2, 'keypoints': finding, 'reliability': trusting,
            'matched': right[known].float().mean()}


def _at_cells(values: Tensor, points: Tensor) -> Tensor:
    """Return values (B,1,h,w) at the cells of points (B,N,2) in pixels, (B,N)."""
    height, width = values.shape[2:]
    columns = (points[..., 0] / CELL).floor().long().clamp(0, width - 1)
    rows = (points[..., 1] / CELL).floor().long().clamp(0, height - 1)
    return values.flatten(1).gather(1, rows * width + columns)


def draw_batch(views: Views, options: FeatureTraining, step: int) -> Batch:
    """Return the batch of a step: pairs of views, each through a lens and a light of its own."""
    rng = np.random.default_rng((options.seed, step))
    torch.manual_seed(options.seed * 1_000_003 + step)
    size = (options.width, options.height)
    images: tuple[list[NDArray[np.uint8]], ...] = ([], [])
    cells: tuple[list[NDArray[np.float32]], ...] = ([], [])
    points = np.zeros((2, options.batch, options.points, 2), np.float32)
    known = np.zeros((options.batch, options.points), np.bool_)
    number = 0
    while number < options.batch:
        pair = int(rng.integers(len(views.pairs)))
        numbers = views.pairs[pair].tolist()
        both = views.pair_pixels[views.pair_starts[pair]:views.pair_starts[pair + 1]]
        if rng.random() < _REPLACED:
            numbers = [numbers[0], numbers[0]]
            both = np.repeat(_points_of(views, numbers[0])[:, None], 2, axis=1)
        centre = both[rng.integers(len(both))]
        warps = [_warp(rng, centre[side], size) for side in (0, 1)]
        seen = np.stack([_through(warps[side], both[:, side]) for side in (0, 1)], axis=1)
        inside = np.flatnonzero(((seen > 1) & (seen < (size[0] - 2, size[1] - 2))).all((1, 2)))
        if len(inside) < _FEWEST:
            continue
        chosen = rng.permutation(inside)[:options.points]
        points[:, number, :len(chosen)] = seen[chosen].swapaxes(0, 1)
        known[number, :len(chosen)] = True
        for side in (0, 1):
            image: Any = cv2.warpPerspective(views.images[numbers[side]], warps[side], size,
                                             borderMode=cv2.BORDER_REFLECT)
            images[side].append(_lit(rng, image))
            cells[side].append(_cells(_through(warps[side], _points_of(views, numbers[side])),
                                      size))
        number += 1
    grey = torch.from_numpy(np.stack(images[0] + images[1])[:, None]).float() / 255
    return Batch(grey, torch.from_numpy(np.stack(cells[0] + cells[1])),
                 torch.from_numpy(points.reshape(-1, options.points, 2)), torch.from_numpy(known))


def _points_of(views: Views, number: int) -> NDArray[np.float32]:
    return views.pixels[views.starts[number]:views.starts[number + 1]]


def _warp(rng: np.random.Generator, centre: NDArray[np.float32], size: tuple[int, int]) -> Floats:
    """Return a homography (3,3) to an image of `size`, near the middle of which `centre` is."""
    width, height = size
    scale, angle = 1.4 ** rng.uniform(-1, 1), np.radians(rng.uniform(-6, 6))
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)],
                             [math.sin(angle), math.cos(angle)]]) @ np.diag(
                                 1.1 ** rng.uniform(-1, 1, 2))
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = np.array(size) / 2 + rng.uniform(-0.2, 0.2, 2) * size - turn @ centre
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + (rng.uniform(-0.08, 0.08, (4, 2)) * size).astype(np.float32)
    return np.asarray(cv2.getPerspectiveTransform(corners, moved) @ matrix)


def _through(warp: Floats, pixels: NDArray[np.float32]) -> Floats:
    """Return pixels (P,2) through a homography."""
    image = np.column_stack([pixels, np.ones(len(pixels))]) @ warp.T
    return np.asarray(image[:, :2] / image[:, 2:])


def _lit(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image in another light, blurred, and with noise, each perhaps."""
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3))  # type: ignore[assignment]
    if rng.random() < 0.3:
        width, height = image.shape[::-1]
        ramp = (rng.uniform(-0.5, 0.5) * np.linspace(-1, 1, width)
                + rng.uniform(-0.5, 0.5) * np.linspace(-1, 1, height)[:, None])
        image = np.clip(image * 2 ** ramp, 0, 255).astype(np.uint8)
    changed = torch.from_numpy(np.ascontiguousarray(image))[None]
    if rng.random() < 0.5:
        changed = Dusk(darkest=6.0, gain=(0.25, 1.0))(changed)
    if rng.random() < 0.6:
        changed = SensorNoise(read=(1.0, 8.0), shot=(0.0, 0.2))(changed)
    lit: NDArray[np.uint8] = changed[0].numpy()
    return lit


def _cells(pixels: Floats, size: tuple[int, int]) -> NDArray[np.float32]:
    """
    Return where the keypoints (P,2) of an image are, as a share of each cell (65,h,w).

    A point between pixels is shared by the four around it, so that their mean tells where it is.
    """
    width, height = size
    heat = np.zeros((height + 1, width + 1), np.float32)
    inside = ((pixels >= 0) & (pixels < (width - 1, height - 1))).all(axis=1)
    whole = np.floor(pixels[inside]).astype(np.int64)
    part = pixels[inside] - whole
    for right in (0, 1):
        for below in (0, 1):
            share = np.abs(1 - right - part[:, 0]) * np.abs(1 - below - part[:, 1])
            np.maximum.at(heat, (whole[:, 1] + below, whole[:, 0] + right), share)
    cells = heat[:height, :width].reshape(height // CELL, CELL, width // CELL, CELL)
    cells = cells.transpose(1, 3, 0, 2).reshape(CELL * CELL, height // CELL, width // CELL)
    total = cells.sum(axis=0)
    cells = cells / np.maximum(total, 1)
    return np.concatenate([cells, np.maximum(1 - total, 0)[None]])
