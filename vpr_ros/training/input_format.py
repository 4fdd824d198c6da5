"""What a published network expects of the pixels that it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAYOUTS = ('nchw', 'nhwc')
CHANNEL_ORDERS = ('rgb', 'bgr')
MAX_SIDE = 4096


@dataclass(frozen=True)
class InputFormat:
    """
    The input that a published network was trained with: (pixels / scale - mean) / std.

    `mean` and `std` have one value per channel, in the order of `colour`, 'rgb' or 'bgr'; by
    default they are those of ImageNet. `layout` is 'nchw' or 'nhwc'. `size` is (height, width),
    needed if the network takes any size. Raises ValueError for invalid values.
    """

    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    size: tuple[int, int] | None = None
    layout: str = 'nchw'
    colour: str = 'rgb'
    scale: float = 255.0

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout '{self.layout}' is not known; use one of "
                             f'{", ".join(LAYOUTS)}')
        if self.colour not in CHANNEL_ORDERS:
            raise ValueError(f"colour order '{self.colour}' is not known; use one of "
                             f'{", ".join(CHANNEL_ORDERS)}')
        if (not len(self.mean) == len(self.std) == 3
                or not np.isfinite([self.mean, self.std]).all()):
            raise ValueError('mean and std are three finite numbers each, one for each channel')
        if min(self.std) <= 0 or not 0 < self.scale < np.inf:
            raise ValueError('std and scale are above 0')
        if self.size is not None and not 1 <= min(self.size) <= max(self.size) <= MAX_SIDE:
            raise ValueError(f'a size of {self.size[1]}x{self.size[0]} is out of range')

    @property
    def pixel_mean(self) -> NDArray[np.float32]:
        """Mean (3,) in grey levels."""
        return np.asarray(self.scale * np.asarray(self.mean, np.float64), np.float32)

    @property
    def pixel_std(self) -> NDArray[np.float32]:
        """Return the standard deviation (3,) in grey levels."""
        return np.asarray(self.scale * np.asarray(self.std, np.float64), np.float32)

    @property
    def leaves_pixels(self) -> bool:
        """Whether nobody chose a normalisation: it is the default, or changes nothing."""
        chosen = (*self.mean, *self.std, self.scale)
        default = (*InputFormat.mean, *InputFormat.std, InputFormat.scale)
        return chosen in (default, (0, 0, 0, 1, 1, 1, 1))

    def shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the shape of one image in this layout."""
        return (3, height, width) if self.layout == 'nchw' else (height, width, 3)

    def arrange(self, images: NDArray[np.uint8], kind: type[np.generic]) -> NDArray[np.generic]:
        """Return images uint8 (N,H,W,3) RGB as a network takes them whose input is of `kind`."""
        ordered: NDArray[np.generic] = images[..., ::-1] if self.colour == 'bgr' else images
        if kind is not np.uint8:
            # In float32, as the nodes of the wrapped graph compute: the results are the same bits.
            ordered = ((ordered.astype(np.float32) - self.pixel_mean) / self.pixel_std
                       ).astype(kind)
        return np.ascontiguousarray(ordered.transpose(0, 3, 1, 2) if self.layout == 'nchw'
                                    else ordered)
