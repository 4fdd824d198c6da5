"""
Composition of batches: images are grouped into places, places into areas, areas into batches.

This module works on indices; the images are read in image_table.py, and losses.py computes the
loss of a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import math
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree
from torch.utils.data import Sampler
from vpr_ros.training.image_table import SAME_VIEW

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from numpy.typing import NDArray
    from vpr_ros.training.image_table import ImageTable


class BatchShape(NamedTuple):
    """Areas in a batch, places per area, images per place."""

    areas: int
    places: int
    images: int

    def __str__(self) -> str:
        return f'{self.areas} areas x {self.places} places x {self.images} images'


class LeftOut(NamedTuple):
    """How many of the images are in no batch, by the reason."""

    single: int
    """Images of places that have no second image."""
    isolated: int
    """Images of places whose area has too few places."""
    total: int
    """All images, those of batches included."""

    @property
    def images(self) -> int:
        """Images in no batch."""
        return self.single + self.isolated

    def __str__(self) -> str:
        reasons = [f'{count} {reason}' for count, reason in (
            (self.single, 'have no second image of their place'),
            (self.isolated, 'are of places with too few neighbours for an area')) if count]
        return (f'{self.images} of {self.total} images ({self.images / self.total:.1%}) are left '
                f'out: {", ".join(reasons)}')


def group_places(world: NDArray[np.int64], position: NDArray[np.float64], radius: float, *,
                 heading: NDArray[np.float64] | None = None,
                 alone: NDArray[np.bool_] | None = None, views: int = 2
                 ) -> list[NDArray[np.int64]]:
    """
    Group images into places, each the int64 indices of its images, ascending.

    A place is a cell of a square grid over a world; its diagonal is `radius` metres, so no two of
    its images are farther apart. With `heading` (N,) in radians, they also differ by at most
    SAME_VIEW; unknown headings (NaN) stay together. The only image of a cell joins the nearest
    place of which all this stays true. An image that is `alone` (N,) is its own place, with its
    index `views` times, once for each augmented view. `world` int64 (N,); `position` (N,2) in
    metres. Ordered by world, x and y; images that are alone come last. Raises ValueError for a
    radius that is not positive or positions that are not finite.
    """
    if not radius > 0.0:
        raise ValueError(f'the radius of a place must be positive; got {radius}')
    if not np.isfinite(position).all():
        raise ValueError('positions must be finite to be grouped into places')
    if alone is None:
        alone = np.zeros(len(world), bool)
    together = np.flatnonzero(~alone)
    cell = np.floor(position[together] * (math.sqrt(2.0) / radius)).astype(np.int64)
    key = np.column_stack([world[together], cell])  # (M,3)
    order = np.lexsort(key.T[::-1])
    key, together = key[order], together[order]
    first = np.flatnonzero((key[1:] != key[:-1]).any(axis=1)) + 1
    places = [place for place in np.split(together, first) if len(place)]
    if heading is not None:
        places = [part for place in places for part in _split_by_heading(place, heading)]
    else:
        heading = np.full(len(world), np.nan)
    places = _join_single_images(places, world, position, heading, radius)
    return [*places, *(np.full(views, index, np.int64) for index in np.flatnonzero(alone))]


def can_take_part(places: Sequence[NDArray[np.int64]], images: int) -> NDArray[np.bool_]:
    """
    Return which of P places can be in a batch of `images` images per place, (P,).

    Those with two images or more: what is missing to `images` is filled up with further augmented
    views. A single image would show nothing but the augmentation.
    """
    return np.array([len(place) >= min(images, 2) for place in places], np.bool_)


def group_areas(world: NDArray[np.int64], centre: NDArray[np.float64], smallest: int
                ) -> NDArray[np.int64]:
    """
    Group neighbouring places into areas; return the area (P,) of each place.

    Only of places that `can_take_part`: others would leave areas with too few of them. A world is
    halved across its longer side until its areas have `smallest` to 2 * smallest - 1 places.
    Worlds with fewer than `smallest` places share areas of that size with each other. `world`
    int64 (P,) and `centre` (P,2) in metres are those of the places. Raises ValueError for a
    `smallest` below 1.
    """
    if smallest < 1:
        raise ValueError(f'an area needs a place or more; got {smallest}')
    _, which, count = np.unique(world, return_inverse=True, return_counts=True)
    small = count[which] < smallest
    centre = np.asarray(centre, np.float64).copy()
    # Distances between worlds have no meaning; their order is used instead.
    centre[small] = np.column_stack([which[small], np.zeros(small.sum())])
    region = np.where(small, -1, which)
    area = np.empty(len(world), np.int64)
    number = 0
    open_parts = _by_value(region)[::-1]
    while open_parts:
        part = open_parts.pop()
        pieces = len(part) // smallest
        if pieces < 2:
            area[part] = number
            number += 1
            continue
        side = int(np.argmax(np.ptp(centre[part], axis=0)))
        part = part[np.argsort(centre[part, side], kind='stable')]
        middle = len(part) * (pieces // 2) // pieces
        open_parts += [part[middle:], part[:middle]]
    return area


Regroup = Callable[['NDArray[np.int64]', int, np.random.Generator], 'NDArray[np.int64]']
"""
From one image (P,) of each of P places to groups (P/m,m) of these places, by their rank 0 to P-1.
"""


class AreaBatchSampler(Sampler[list[int]]):
    """
    Batches of n areas x m places x l images, for `DataLoader(data, batch_sampler=...)`.

    In a batch, images of a place are adjacent, and so are places of an area. A place with fewer
    than l images gives some of them again, for another augmented view. An epoch visits every
    place except those counted in `left_out`. If m does not divide the number of an area's places,
    some are visited twice to fill its last group, so areas of several times m places are better
    than areas of just above m. The areas of a batch differ, unless one has more groups than there
    are batches. The last incomplete batch is dropped: other places in each epoch. The images of a
    place come from as many sessions as possible.

    The batches of an epoch depend on `seed` and the epoch alone, so that a resumed training
    continues with the same ones. With `replicas` processes, each computes the same epoch and
    yields every `replicas`-th batch from `rank` on: equally many for each, none twice. Lightning
    needs `Trainer(use_distributed_sampler=False)` for this. It calls `set_epoch` only on
    `batch_sampler.sampler`, which is why that property returns the sampler itself.

    `places` are the image indices of each of P places, `area` (P,) the area of each place (any
    number, if it cannot take part), `session` (N,) the session of each image. Raises ValueError,
    with what is missing, when there is not one batch per replica.
    """

    regroup: Regroup | None = None
    """Groups places by something else than their areas: see `Regroup`."""
    regrouped: int | None = None
    """How many places of an epoch are grouped by `regroup`; None for all."""

    def __init__(self, places: Sequence[NDArray[np.int64]], area: ArrayLike, session: ArrayLike,
                 shape: BatchShape, *, seed: int = 0, rank: int = 0, replicas: int = 1) -> None:
        if min(*shape, replicas) < 1 or not 0 <= rank < replicas or seed < 0:
            raise ValueError(f'there are no batches of {shape} with seed {seed} for rank {rank} '
                             f'of {replicas}')
        area = np.asarray(area)
        if len(area) != len(places):
            raise ValueError(f'{len(places)} places need as many areas; got {len(area)}')
        self.shape = shape
        self.seed = seed
        self.rank = rank
        self.replicas = replicas
        self.epoch = 0
        self._places = places
        self._session = np.asarray(session)
        usable = np.flatnonzero(can_take_part(places, shape.images))
        # The usable places of each area that has enough of them.
        self._members = [usable[inside] for inside in _by_value(area[usable])
                         if len(inside) >= shape.places]
        counts = np.array([len(place) for place in places], np.int64)
        used = sum(int(counts[members].sum()) for members in self._members)
        single = int(counts.sum() - counts[usable].sum())
        self.left_out = LeftOut(single, int(counts.sum()) - single - used, int(counts.sum()))
        groups = sum(-(-len(members) // shape.places) for members in self._members)
        self._batches = groups // shape.areas // replicas * replicas
        if not self._batches:
            raise ValueError(
                f'too few images for a batch of {shape} for each of {replicas} process(es): '
                f'{len(usable)} of {len(places)} places have {min(shape.images, 2)} images or '
                f'more, and {len(self._members)} of {len(np.unique(area[usable]))} areas have '
                f'{shape.places} such '
                'places or more; provide more images per place, or reduce the batch')

    @classmethod
    def of_table(cls, table: ImageTable, shape: BatchShape, within: float, *, seed: int = 0,
                 rank: int = 0, replicas: int = 1) -> AreaBatchSampler:
        """Return the batches of a table whose images within `within` metres show one place."""
        places = group_places(table.world, table.position, within, heading=table.heading,
                              alone=table.alone, views=shape.images)
        usable = can_take_part(places, shape.images)
        first = np.array([place[0] for place in places])[usable]
        area = np.full(len(places), -1)
        area[usable] = group_areas(table.world[first], table.position[first], shape.places)
        return cls(places, area, table.session, shape, seed=seed, rank=rank, replicas=replicas)

    @property
    def sampler(self) -> AreaBatchSampler:
        """Return this sampler itself, on which Lightning calls `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches per epoch and process."""
        return self._batches // self.replicas

    def __iter__(self) -> Iterator[list[int]]:
        """Yield batches of n * m * l image indices for the epoch that was set."""
        batches = self._places_of_batches(np.random.default_rng([self.seed, self.epoch]))
        for number in range(self.rank, self._batches, self.replicas):
            # One generator per batch, so that replicas need not draw each other's numbers. From 1
            # on, because numpy takes a seed [a,b] for [a,b,0].
            random = np.random.default_rng([self.seed, self.epoch, 1 + number])
            yield [int(index) for place in batches[number].flat
                   for index in self._choose(self._places[place], random)]

    def _places_of_batches(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Return the places (batches,n,m) of an epoch."""
        m = self.shape.places
        groups = []
        for index in random.permutation(len(self._members)):
            members = random.permutation(self._members[index])
            # Filled up from the front, which is in another group: no group has a place twice.
            filled = np.append(members, members[:-len(members) % m])
            groups.append(filled.reshape(-1, m))
        flat = np.concatenate(groups)  # (groups,m), those of one area adjacent
        if self.regroup is not None:
            count = len(flat) if self.regrouped is None else min(len(flat), self.regrouped // m)
            chosen = random.permutation(len(flat))[:count]
            slots = flat[chosen].reshape(-1)
            images = np.array([random.choice(self._places[place]) for place in slots], np.int64)
            flat[chosen] = slots[self.regroup(images, m, random)]
        kept = random.permutation(len(flat))[:self._batches * self.shape.areas]
        # Dealt like cards: a batch gets two groups of an area only if there are too few batches.
        dealt = flat[np.sort(kept)].reshape(self.shape.areas, self._batches, m)
        return random.permutation(dealt.transpose(1, 0, 2))

    def _choose(self, place: NDArray[np.int64], random: np.random.Generator
                ) -> NDArray[np.int64]:
        """Return images of a place: one of every session before a second of any."""
        place = random.permutation(place)
        seen: Counter[int] = Counter()
        turns = []
        for session in self._session[place].tolist():
            turns.append(seen[session])
            seen[session] += 1
        ordered = place[np.argsort(turns, kind='stable')[:self.shape.images]]
        return np.resize(ordered, self.shape.images)  # from the front again, if too few


def _by_value(values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the indices of each value, in the order of the values."""
    order = np.argsort(values, kind='stable')
    parts = np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
    return [part for part in parts if len(part)]


def _split_by_heading(place: NDArray[np.int64], heading: NDArray[np.float64]
                      ) -> Iterator[NDArray[np.int64]]:
    """Yield groups of a place's images with headings within SAME_VIEW of each other."""
    known = np.isfinite(heading[place])
    if not known.all():
        yield place[~known]
    rest = place[known]
    while len(rest):
        turned = np.abs(np.angle(np.exp(1j * (heading[rest] - heading[rest[0]]))))
        same = turned <= SAME_VIEW / 2.0
        yield rest[same]
        rest = rest[~same]


def _join_single_images(places: list[NDArray[np.int64]], world: NDArray[np.int64],
                        position: NDArray[np.float64], heading: NDArray[np.float64],
                        radius: float) -> list[NDArray[np.int64]]:
    """Let the only image of a place join the nearest other place all of whose images fit to it."""
    if all(len(place) > 1 for place in places):
        return places
    grouped = np.concatenate(places)
    home = np.repeat(np.arange(len(places)), [len(place) for place in places])
    # Worlds are stacked, farther apart than any two images of a place.
    point = np.column_stack([position[grouped], 2.0 * radius * world[grouped]])
    view = heading[grouped]
    tree = cKDTree(point)
    members = dict(enumerate(np.split(np.arange(len(grouped)),
                                      np.flatnonzero(np.diff(home)) + 1)))
    for number, place in enumerate(places):
        if len(place) > 1 or len(members[number]) > 1:
            continue
        image = members[number][0]
        near = np.array(tree.query_ball_point(point[image], radius), np.int64)
        apart = np.linalg.norm(point[near] - point[image], axis=1)
        for other in dict.fromkeys(home[near[np.argsort(apart, kind='stable')]].tolist()):
            theirs = members[other]
            if other != number and _is_of_place(point, view, image, theirs, radius):
                members[other] = np.append(theirs, image)
                home[image] = other
                del members[number]
                break
    return [np.sort(grouped[members[number]]) for number in sorted(members)]


def _is_of_place(point: NDArray[np.float64], view: NDArray[np.float64], image: int,
                 theirs: NDArray[np.int64], radius: float) -> bool:
    """Return whether an image is within the radius and the view of all images of a place."""
    if np.linalg.norm(point[theirs] - point[image], axis=1).max() > radius:
        return False
    if np.isnan(view[image]) or np.isnan(view[theirs]).any():
        return bool(np.isnan(view[image]) and np.isnan(view[theirs]).all())
    turned = np.abs(np.angle(np.exp(1j * (view[theirs] - view[image]))))
    return bool(turned.max() <= SAME_VIEW)
