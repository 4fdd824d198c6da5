"""
Image augmentation: viewpoint, light, occlusion, lens blur, sensor noise, JPEG.

Each transform takes one image and returns one of the same shape. Which images are augmented, and
whether two views of an image are a positive pair, is decided elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

STRENGTHS = ('none', 'mild', 'strong')

LUMA = (0.299, 0.587, 0.114)
"""Share of R, G and B in brightness (ITU-R BT.601)."""
YIQ = (LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
"""RGB to luma and the plane of chroma: hue is the angle in that plane, saturation the radius."""


def augmentation(strength: str = 'strong') -> v2.Transform | None:
    """
    Return a random transform of one image, a uint8 tensor (3,H,W) RGB, that keeps its shape.

    `strength` is 'none' (None is returned), 'mild' (the same drive on another day) or 'strong'
    (another lane, season or time of day). The steps are in the order in which they affect light on
    its way to a file: viewpoint, colour, dusk, occlusion, lens, sensor, compression. Images are
    never mirrored: a mirrored street is another street. Random numbers come from torch's global
    generator, which a DataLoader seeds in each of its workers. Raises ValueError for an unknown
    strength.
    """
    if strength == 'none':
        return None
    if strength == 'mild':
        return v2.Compose([
            v2.RandomApply([Warp(area=(0.85, 1.0), stretch=1.05, shift=0.03, rotation=3.0,
                                 perspective=0.03)], 0.8),
            v2.RandomApply([ColourJitter(brightness=1.3, contrast=1.2, saturation=(0.7, 1.3),
                                         hue=8.0, cast=1.05)], 0.8),
            v2.RandomApply([Dusk(gamma=(0.8, 1.5), gain=(0.7, 1.0))], 0.2),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.0))], 0.1),
            v2.RandomApply([SensorNoise(read=(1.0, 5.0), shot=(0.0, 0.2))], 0.3),
            v2.RandomApply([Compression(quality=(50, 95))], 0.1),
        ])
    if strength == 'strong':
        return v2.Compose([
            v2.RandomApply([Warp()], 0.9),
            v2.RandomApply([ColourJitter()], 0.8),
            v2.RandomApply([ColourJitter(saturation=(0.0, 0.0), hue=0.0, cast=1.0)], 0.1),
            v2.RandomApply([Dusk()], 0.3),
            Occlusion(p=0.4, scale=(0.02, 0.2), ratio=(0.3, 3.0), value=0),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 2.0))], 0.2),
            v2.RandomApply([SensorNoise()], 0.4),
            v2.RandomApply([Specks()], 0.1),
            v2.RandomApply([Compression()], 0.2),
        ])
    raise ValueError(f'augmentation {strength!r}: choose one of {", ".join(STRENGTHS)}')


class Warp(v2.Transform):
    """
    Crop, scale, shift, rotation and perspective as one homography, hence one resampling.

    A quadrilateral of the image is stretched over the whole image. Beyond the border the image is
    reflected: from black wedges a network could learn which images were augmented alike.

    area        share of the image that the quadrilateral covers, smallest and largest
    stretch     largest factor on its aspect ratio, in both directions
    shift       largest shift beyond the crop's own, relative to width and height
    rotation    largest angle, in degrees
    perspective largest shift of each corner, relative to width and height
    """

    def __init__(self, area: tuple[float, float] = (0.6, 1.0), stretch: float = 1.15,
                 shift: float = 0.08, rotation: float = 8.0, perspective: float = 0.08) -> None:
        super().__init__()
        self.area = area
        self.stretch = stretch
        self.shift = shift
        self.rotation = rotation
        self.perspective = perspective

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the quadrilateral: its corners float32 (4,2), x and y in pixels, clockwise."""
        height, width = flat_inputs[0].shape[-2:]
        size = np.array([width, height])
        aspect = _factor(self.stretch)
        scale = math.sqrt(_uniform(*self.area)) * np.array([aspect ** 0.5, aspect ** -0.5])
        angle = math.radians(_uniform(-self.rotation, self.rotation))
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * scale * size / 2
        slack = np.abs(1.0 - scale) / 2 + self.shift
        centre = size / 2 - 0.5 + size * [_uniform(-s, s) for s in slack]
        jitter = torch.empty(4, 2).uniform_(-1.0, 1.0).numpy() * self.perspective * size
        return {'corners': (corners @ turn + centre + jitter).astype(np.float32)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Warp the quadrilateral to the full image."""
        height, width = inpt.shape[-2:]
        frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
        homography = cv2.getPerspectiveTransform(frame, params['corners'])
        image = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy())
        # OpenCV: torchvision's own perspective takes four times as long and fills with one colour.
        warped = cv2.warpPerspective(image, homography, (width, height),
                                     flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                     borderMode=cv2.BORDER_REFLECT)
        return torch.from_numpy(warped).permute(2, 0, 1).contiguous()


class ColourJitter(v2.Transform):
    """
    Brightness, contrast, saturation, hue and white balance as one matrix on RGB.

    Used in place of `v2.ColorJitter`, which goes through HSV and takes longer than all other steps
    together.

    brightness, contrast  largest factor, in both directions; contrast is about the mean luma
    saturation  smallest and largest factor; 0 gives a grey image
    hue         largest rotation, in degrees
    cast        largest factor on each of R, G and B, in both directions; with 1, grey stays grey
    """

    def __init__(self, brightness: float = 1.5, contrast: float = 1.5,
                 saturation: tuple[float, float] = (0.3, 1.7), hue: float = 25.0,
                 cast: float = 1.15) -> None:
        super().__init__()
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.cast = cast

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the matrix (3,3) for hue, saturation and white balance, and the other two."""
        angle = math.radians(_uniform(-self.hue, self.hue))
        radius = _uniform(*self.saturation)
        cosine, sine = radius * math.cos(angle), radius * math.sin(angle)
        turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        to_yiq = np.array(YIQ)
        cast = np.array([_factor(self.cast) for _ in range(3)])
        return {'matrix': cast[:, None] * np.linalg.solve(to_yiq, turn @ to_yiq),
                'brightness': _factor(self.brightness), 'contrast': _factor(self.contrast)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Multiply the pixels."""
        pixels = inpt.reshape(3, -1).float()  # (3,H,W) -> (3,HW)
        luma = float(pixels.mean(dim=1) @ torch.tensor(LUMA))
        matrix = torch.as_tensor(params['matrix'] * params['contrast'], dtype=torch.float32)
        offset = torch.full((3, 1), luma * (1.0 - params['contrast']))
        changed = torch.addmm(offset, matrix, pixels).mul_(params['brightness'])
        return _levels(changed).reshape(inpt.shape)


class Dusk(v2.Transform):
    """
    Less light: 255 * gain * (x / 255) ** gamma, with both drawn log-uniformly.

    An image whose mean would fall below `darkest` grey levels stays unchanged: night images are
    dark enough, and nothing can be learned from a black one.
    """

    def __init__(self, gamma: tuple[float, float] = (0.8, 2.5),
                 gain: tuple[float, float] = (0.4, 1.0), darkest: float = 12.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.gain = gain
        self.darkest = darkest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw gamma and gain."""
        return {'gamma': _log_uniform(*self.gamma), 'gain': _log_uniform(*self.gain)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Map every grey level through a table of 256."""
        levels = torch.arange(256, dtype=torch.float32) / 255.0
        table = _levels(255.0 * params['gain'] * levels ** params['gamma'])
        # torch would index with int64, eight times the image: cv2.LUT takes a tenth of the time.
        darker = cv2.LUT(inpt.reshape(len(inpt), -1).numpy(), table.numpy())
        if darker.mean() < self.darkest:
            return inpt
        return torch.from_numpy(darker).reshape(inpt.shape)


class Occlusion(v2.RandomErasing):
    """A rectangle of one random colour, like a vehicle that blocks the view."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle as torchvision does, and its colour."""
        params = super().make_params(flat_inputs)
        if params['v'] is not None:  # None: the image is too small for a rectangle
            params['v'] = torch.randint(256, (3, 1, 1), dtype=torch.uint8)
        return params


class SensorNoise(v2.Transform):
    """
    Gaussian noise of variance read**2 + shot * x, independent for each channel and pixel.

    read  standard deviation in the dark, smallest and largest, in grey levels; log-uniform
    shot  variance per grey level, smallest and largest: photon noise
    """

    def __init__(self, read: tuple[float, float] = (1.0, 12.0),
                 shot: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__()
        self.read = read
        self.shot = shot

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw both parameters."""
        return {'read': _log_uniform(*self.read), 'shot': _uniform(*self.shot)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Add the noise."""
        pixels = inpt.contiguous().float()
        deviation = (pixels * params['shot']).add_(params['read'] ** 2).sqrt_()
        return _levels(torch.randn(pixels.shape).mul_(deviation).add_(pixels))


class Specks(v2.Transform):
    """Salt-and-pepper noise: up to `share` of the pixels turn white or black."""

    def __init__(self, share: float = 0.03) -> None:
        super().__init__()
        self.share = share

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Scatter the specks."""
        height, width = inpt.shape[-2:]
        count = math.ceil(_uniform(0.0, self.share) * height * width)
        rows, columns = torch.randint(height, (count,)), torch.randint(width, (count,))
        specked = inpt.clone()
        specked[:, rows, columns] = 255 * torch.randint(2, (count,), dtype=torch.uint8)
        return specked


class Compression(v2.Transform):
    """
    JPEG compression artefacts: encode and decode at a random quality, smallest and largest of 100.

    By OpenCV, as on a camera's compressed topic; torchvision has deprecated its own.
    """

    def __init__(self, quality: tuple[int, int] = (15, 80)) -> None:
        super().__init__()
        self.quality = quality

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the quality."""
        return {'quality': round(_uniform(*self.quality))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Encode and decode."""
        bgr = np.ascontiguousarray(inpt.flip(0).permute(1, 2, 0).numpy())
        _, coded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, params['quality']])
        decoded = torch.from_numpy(cv2.imdecode(coded, cv2.IMREAD_COLOR))
        return decoded.permute(2, 0, 1).flip(0).contiguous()


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _log_uniform(low: float, high: float) -> float:
    return math.exp(_uniform(math.log(low), math.log(high)))


def _factor(largest: float) -> float:
    """Draw a factor between 1 / `largest` and `largest`, as often below 1 as above."""
    return _log_uniform(1.0 / largest, largest)


def _levels(values: Tensor) -> Tensor:
    """Round to grey levels, in place: float -> uint8."""
    return values.round_().clamp_(0.0, 255.0).to(torch.uint8)
