"""
Which pictures make a batch: pictures into places, places into areas, areas into batches.

Numbers only: the pictures themselves are read in pictures.py, and what a batch costs is in
losses.py.
"""

from __future__ import annotations

from collections import Counter
import math
from typing import NamedTuple
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from numpy.typing import NDArray

SAME_VIEW = math.radians(60.0)
"""Pictures of one place look the same way: their headings differ by no more than this, rad."""


class LeftOut(NamedTuple):
    """What takes no part in any batch."""

    pictures: int
    """Pictures of the places below."""
    places: int
    """Places with too few pictures, and places of the areas below."""
    areas: int
    """Areas with too few places that have enough pictures."""


def group_places(world: NDArray[np.int64], position: NDArray[np.float64], radius: float, *,
                 heading: NDArray[np.float64] | None = None,
                 alone: NDArray[np.bool_] | None = None, views: int = 2
                 ) -> list[NDArray[np.int64]]:
    """
    Group pictures into places, each the int64 indices of its pictures, ascending.

    A place is a cell of a square grid over a world whose diagonal is `radius` metres: any two of
    its pictures are closer than that. Where `heading` (N,) in radians is given, they also differ
    by 60 degrees at most; unknown headings (NaN) stay together. A picture that is `alone` (N,) is
    its own place, with its index `views` times, once for each augmented view. `world` int64 (N,);
    `position` (N,2) in metres. The order is by world, x and y, then the pictures that are alone.
    Raises ValueError for a radius that is not positive or positions that are not finite.
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
    return [*places, *(np.full(views, index, np.int64) for index in np.flatnonzero(alone))]


def group_areas(world: NDArray[np.int64], centre: NDArray[np.float64], smallest: int
                ) -> NDArray[np.int64]:
    """
    Group places that are close into areas; return the area (P,) of each place.

    A world is halved across its longer side until its areas have `smallest` to 2 * smallest - 1
    places. The places of worlds that have fewer than `smallest` go into areas of the same size
    with those of the next such worlds. `world` int64 (P,) and `centre` (P,2) in metres are those
    of the places. Raises ValueError for a `smallest` below 1.
    """
    if smallest < 1:
        raise ValueError(f'an area needs a place or more; got {smallest}')
    _, which, count = np.unique(world, return_inverse=True, return_counts=True)
    small = count[which] < smallest
    centre = np.asarray(centre, np.float64).copy()
    # Distances between worlds mean nothing: their order stands in for them.
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


class AreaBatchSampler(Sampler[list[int]]):
    """
    Batches of n areas x m places x l pictures, for `DataLoader(data, batch_sampler=...)`.

    In a batch, pictures of one place stand next to each other, and places of one area do. An epoch
    goes through every place that can take part; an area whose places don't divide by m is filled
    up with some of its own a second time, so areas of several m are better than ones just above m.
    The areas of a batch differ, unless one has more to give than there are batches. The last
    incomplete batch is dropped: other places in each epoch. The pictures of a place come from as
    many sessions as it has.

    The batches of an epoch are decided by `seed` and the epoch alone, so that a training that was
    interrupted goes on with the same ones. With `replicas` processes each makes the same epoch
    and keeps every `replicas`-th batch from `rank` on: as many for each, none twice. Lightning
    needs `Trainer(use_distributed_sampler=False)` then; it looks for `set_epoch` only at
    `batch_sampler.sampler`, and finds it because that is the sampler itself.

    `places` are the pictures' indices of each of P places, `area` (P,) the area of each place,
    `session` (N,) the session of each picture. Raises ValueError when too little can take part for
    one batch per replica, and says what is missing.
    """

    def __init__(self, places: Sequence[NDArray[np.int64]], area: ArrayLike, session: ArrayLike, *,
                 areas_per_batch: int, places_per_area: int, pictures_per_place: int,
                 seed: int = 0, rank: int = 0, replicas: int = 1) -> None:
        n, m, l = areas_per_batch, places_per_area, pictures_per_place  # noqa: E741
        if min(n, m, l, replicas) < 1 or not 0 <= rank < replicas or seed < 0:
            raise ValueError(f'there are no batches of {n} x {m} x {l} with seed {seed} for rank '
                             f'{rank} of {replicas}')
        area = np.asarray(area)
        if len(area) != len(places):
            raise ValueError(f'{len(places)} places need as many areas; got {len(area)}')
        self.areas_per_batch = n
        self.places_per_area = m
        self.pictures_per_place = l
        self.seed = seed
        self.rank = rank
        self.replicas = replicas
        self.epoch = 0
        self._places = places
        self._session = np.asarray(session)
        enough = np.array([i for i, place in enumerate(places) if len(place) >= l], np.int64)
        self._members = [enough[ours] for ours in _by_value(area[enough]) if len(ours) >= m]
        inside = sum(len(places[place]) for ours in self._members for place in ours)
        self.left_out = LeftOut(pictures=sum(map(len, places)) - inside,
                                places=len(places) - sum(map(len, self._members)),
                                areas=len(np.unique(area)) - len(self._members))
        groups = sum(-(-len(ours) // m) for ours in self._members)
        self._batches = groups // n // replicas * replicas
        if not self._batches:
            raise ValueError(
                f'too few pictures for a batch of {n} areas x {m} places x {l} pictures for each '
                f'of {replicas} process(es): {len(enough)} of {len(places)} places have {l} '
                f'pictures or more, and {len(self._members)} of {len(np.unique(area))} areas have '
                f'{m} such places or more; give more pictures per place, or a smaller batch')

    @property
    def sampler(self) -> AreaBatchSampler:
        """This sampler itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches in an epoch, of this process."""
        return self._batches // self.replicas

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the pictures' indices, n * m * l in each batch of the epoch that was set."""
        batches = self._places_of_batches(np.random.default_rng([self.seed, self.epoch]))
        for number in range(self.rank, self._batches, self.replicas):
            # A generator for each batch: what the other processes draw doesn't matter. From 1
            # on, as numpy takes a seed [a,b] for [a,b,0].
            random = np.random.default_rng([self.seed, self.epoch, 1 + number])
            yield [int(index) for place in batches[number].flat
                   for index in self._choose(self._places[place], random)]

    def _places_of_batches(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Return the places (batches,n,m) of an epoch."""
        m = self.places_per_area
        groups = []
        for index in random.permutation(len(self._members)):
            members = random.permutation(self._members[index])
            # From the front, where none of the last group is: no group has a place twice.
            filled = np.append(members, members[:-len(members) % m])
            groups.append(filled.reshape(-1, m))
        flat = np.concatenate(groups)  # (groups,m), those of one area next to each other
        kept = random.permutation(len(flat))[:self._batches * self.areas_per_batch]
        # Dealt like cards: a batch gets two of an area only if it has more than there are batches.
        dealt = flat[np.sort(kept)].reshape(self.areas_per_batch, self._batches, m)
        return random.permutation(dealt.transpose(1, 0, 2))

    def _choose(self, place: NDArray[np.int64], random: np.random.Generator
                ) -> NDArray[np.int64]:
        """Return some pictures of a place: the first of every session before any second."""
        place = random.permutation(place)
        seen: Counter[int] = Counter()
        turns = []
        for session in self._session[place].tolist():
            turns.append(seen[session])
            seen[session] += 1
        return place[np.argsort(turns, kind='stable')[:self.pictures_per_place]]


def _by_value(values: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the indices of each value, in the order of the values."""
    order = np.argsort(values, kind='stable')
    parts = np.split(order, np.flatnonzero(np.diff(values[order])) + 1)
    return [part for part in parts if len(part)]


def _split_by_heading(place: NDArray[np.int64], heading: NDArray[np.float64]
                      ) -> Iterator[NDArray[np.int64]]:
    """Yield the pictures of a place that look the same way as the first of those not yet taken."""
    known = np.isfinite(heading[place])
    if not known.all():
        yield place[~known]
    rest = place[known]
    while len(rest):
        turned = np.abs(np.angle(np.exp(1j * (heading[rest] - heading[rest[0]]))))
        same = turned <= SAME_VIEW / 2.0
        yield rest[same]
        rest = rest[~same]
