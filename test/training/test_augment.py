"""Augmentation: what each step changes, what it must leave alone, and what chance it uses."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from torchvision.transforms import v2  # noqa: E402
from vpr_ros.training.augment import augmentation  # noqa: E402
from vpr_ros.training.augment import ColourJitter  # noqa: E402
from vpr_ros.training.augment import Compression  # noqa: E402
from vpr_ros.training.augment import Dusk  # noqa: E402
from vpr_ros.training.augment import Occlusion  # noqa: E402
from vpr_ros.training.augment import SensorNoise  # noqa: E402
from vpr_ros.training.augment import Specks  # noqa: E402
from vpr_ros.training.augment import Warp  # noqa: E402

OWN_STEPS = {
    'warp': Warp(),
    'colour': ColourJitter(),
    'dusk': Dusk(),
    'occlusion': Occlusion(p=1.0, scale=(0.02, 0.2), ratio=(0.3, 3.0), value=0),
    'sensor noise': SensorNoise(),
    'specks': Specks(),
    'compression': Compression(),
}


def sample_image(height: int = 48, width: int = 64, channels: int = 3) -> torch.Tensor:
    """Return smooth random shapes, the same at every call: uint8 (3,H,W)."""
    noise = np.random.default_rng(5).uniform(0, 255, (height, width, channels))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0).reshape(height, width, channels)
    smooth = 255 * (smooth - smooth.min()) / np.ptp(smooth)
    rgb = np.broadcast_to(smooth, (height, width, 3)).astype(np.uint8)
    return torch.from_numpy(rgb).permute(2, 0, 1).contiguous()


def grey_image() -> torch.Tensor:
    return sample_image(channels=1)


def colourfulness(image: torch.Tensor) -> float:
    """Return the mean spread over R, G and B of a pixel, in grey levels."""
    return float((image.amax(dim=0).float() - image.amin(dim=0).float()).mean())


@pytest.mark.parametrize('strength', ['mild', 'strong'])
@pytest.mark.parametrize(('height', 'width'), [(8, 8), (48, 64), (64, 48), (37, 91)])
def test_any_image_keeps_its_shape_and_type(strength, height, width):
    torch.manual_seed(0)
    change = augmentation(strength)
    image = sample_image(height, width)
    original = image.clone()
    for _ in range(40):
        result = change(image)
        assert result.shape == (3, height, width)
        assert result.dtype == torch.uint8
    assert torch.equal(image, original)  # the caller's image is not written to


def test_an_image_laid_out_as_opencv_does_gives_the_same():
    change = augmentation('strong')
    planes = sample_image()
    interleaved = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for seed in range(20):
        torch.manual_seed(seed)
        expected = change(planes)
        torch.manual_seed(seed)
        assert torch.equal(change(interleaved), expected)


def test_the_seed_of_torch_decides_everything():
    change = augmentation('strong')
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append(torch.stack([change(sample_image()) for _ in range(20)]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_two_views_of_one_image_differ():
    torch.manual_seed(0)
    change = augmentation('strong')
    views = [change(sample_image()) for _ in range(10)]
    assert all(not torch.equal(a, b) for a, b in pairwise(views))


def test_strong_changes_more_than_mild():
    means = {}
    for strength in ('mild', 'strong'):
        torch.manual_seed(0)
        change = augmentation(strength)
        changes = [(change(sample_image()).float() - sample_image().float()).abs().mean()
                   for _ in range(60)]
        means[strength] = float(torch.stack(changes).mean())
    assert means['strong'] > 1.5 * means['mild'] > 0.0


def test_no_augmentation_is_none():
    assert augmentation('none') is None


def test_an_unknown_strength_names_those_there_are():
    with pytest.raises(ValueError, match="'wild': choose one of none, mild, strong"):
        augmentation('wild')


@pytest.mark.parametrize('name', OWN_STEPS)
def test_each_step_changes_the_image(name):
    torch.manual_seed(0)
    changed = [not torch.equal(OWN_STEPS[name](sample_image()), sample_image()) for _ in range(10)]
    assert all(changed)


@pytest.mark.parametrize('name', ['warp', 'dusk', 'specks'])
def test_grey_stays_grey_where_no_colour_is_touched(name):
    torch.manual_seed(0)
    for _ in range(10):
        assert colourfulness(OWN_STEPS[name](grey_image())) == 0.0


def test_hue_and_saturation_leave_grey_things_grey():
    torch.manual_seed(0)
    change = ColourJitter(cast=1.0)
    assert max(colourfulness(change(grey_image())) for _ in range(20)) <= 1.0


def test_no_saturation_makes_an_image_grey_of_the_same_luma():
    torch.manual_seed(0)
    change = ColourJitter(brightness=1.0, contrast=1.0, saturation=(0.0, 0.0), hue=0.0, cast=1.0)
    image = sample_image()
    result = change(image)
    luma = (image.float() * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0)
    assert colourfulness(result) == 0.0
    assert float((result[0].float() - luma).abs().max()) <= 0.51


def test_colour_without_ranges_changes_nothing():
    still = ColourJitter(brightness=1.0, contrast=1.0, saturation=(1.0, 1.0), hue=0.0, cast=1.0)
    assert torch.equal(still(sample_image()), sample_image())


@pytest.mark.parametrize('change', [ColourJitter(1.6, 1.0, (1.0, 1.0), 0.0, 1.0),
                                    ColourJitter(1.0, 1.6, (1.0, 1.0), 0.0, 1.0)])
def test_brightness_and_contrast_go_both_ways(change):
    torch.manual_seed(0)
    image = sample_image().div(2, rounding_mode='floor')
    ratios = [float(change(image).float().std() / image.float().std()) for _ in range(30)]
    assert min(ratios) < 0.8
    assert max(ratios) > 1.25


def test_a_turn_of_hue_makes_red_green_or_blue():
    red = torch.zeros(3, 8, 8, dtype=torch.uint8)
    red[0] = 200
    turn = ColourJitter(brightness=1.0, contrast=1.0, saturation=(1.0, 1.0), hue=120.0, cast=1.0)
    torch.manual_seed(0)
    strongest = {int(turn(red)[:, 0, 0].int().argmax()) for _ in range(30)}
    assert strongest == {0, 1, 2}


def test_a_still_warp_changes_nothing():
    still = Warp(area=(1.0, 1.0), stretch=1.0, shift=0.0, rotation=0.0, perspective=0.0)
    assert torch.equal(still(sample_image()), sample_image())


def test_a_pure_shift_moves_every_pixel_alike():
    torch.manual_seed(0)
    shift = Warp(area=(1.0, 1.0), stretch=1.0, shift=0.2, rotation=0.0, perspective=0.0)
    params = shift.make_params([sample_image()])
    params['corners'] = np.round(params['corners'] - 0.5) + np.float32(0.5)  # whole pixels
    right, down = (params['corners'][0] + 0.5).astype(int)
    result = shift.transform(sample_image(), params)
    expected = np.roll(sample_image().numpy(), (-down, -right), axis=(1, 2))
    inner = np.s_[:, 12:-12, 16:-16]
    np.testing.assert_array_equal(result.numpy()[inner], expected[inner])


def test_a_warp_keeps_most_of_the_image_in_view():
    torch.manual_seed(0)
    warp = Warp()
    for height, width in ((48, 64), (8, 8), (120, 30)):
        frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
        for _ in range(200):
            corners = warp.make_params([sample_image(height, width)])['corners']
            assert cv2.isContourConvex(corners)
            shared, _ = cv2.intersectConvexConvex(frame, corners)
            assert shared >= 0.4 * height * width  # of the image, still to be seen
            assert shared >= 0.65 * cv2.contourArea(corners)  # of the view, image and no border


def test_a_warp_never_mirrors():
    torch.manual_seed(0)
    for _ in range(200):
        corners = Warp().make_params([sample_image()])['corners']
        assert cv2.contourArea(corners, oriented=True) > 0.0


def test_what_a_warp_shows_beyond_the_border_is_not_black():
    torch.manual_seed(0)
    white = torch.full((3, 48, 64), 200, dtype=torch.uint8)
    assert all(torch.equal(Warp()(white), white) for _ in range(20))


def test_dusk_darkens_and_keeps_the_order_of_levels():
    torch.manual_seed(0)
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)
    for _ in range(20):
        result = Dusk(gamma=(1.0, 2.5), gain=(0.4, 0.9))(ramp).int()
        assert float(result.float().mean()) < float(ramp.float().mean())
        assert bool((result[0].flatten().diff() >= 0).all())


def test_dusk_leaves_a_night_as_it_is():
    torch.manual_seed(0)
    night = sample_image().div(20, rounding_mode='floor')
    assert all(torch.equal(Dusk(gamma=(1.5, 2.5))(night), night) for _ in range(10))


def test_an_occlusion_is_one_rectangle_of_one_colour():
    torch.manual_seed(0)
    for _ in range(20):
        result = OWN_STEPS['occlusion'](sample_image())
        rows, columns = torch.nonzero((result != sample_image()).any(dim=0), as_tuple=True)
        block = result[:, rows.min():rows.max() + 1, columns.min():columns.max() + 1]
        assert block[0].numel() <= 0.22 * 48 * 64
        assert all(len(channel.unique()) == 1 for channel in block)


def test_noise_is_as_strong_as_it_says():
    torch.manual_seed(0)
    grey = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    dark = SensorNoise(read=(5.0, 5.0), shot=(0.0, 0.0))(grey).float()
    light = SensorNoise(read=(5.0, 5.0), shot=(0.75, 0.75))(grey).float()
    assert float(dark.std()) == pytest.approx(5.0, rel=0.05)
    assert float(light.std()) == pytest.approx(10.0, rel=0.05)  # sqrt(5**2 + 0.75 * 100)
    assert float(dark.mean()) == pytest.approx(100.0, abs=0.2)


def test_specks_are_few_and_white_or_black():
    torch.manual_seed(0)
    grey = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    for _ in range(10):
        result = Specks(share=0.05)(grey)
        changed = result[:, (result != grey).any(dim=0)]
        assert 0 < changed.shape[1] <= 0.05 * 64 * 64 + 1
        assert set(changed.unique().tolist()) <= {0, 255}
        assert colourfulness(result) == 0.0


def test_compression_loses_more_at_a_lower_quality():
    losses = []
    for quality in (10, 50, 95):
        result = Compression(quality=(quality, quality))(sample_image())
        losses.append(float((result.float() - sample_image().float()).abs().mean()))
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 6.0


def test_all_of_the_strong_steps_take_part():
    steps = augmentation('strong').transforms
    inner = [step.transforms[0] if isinstance(step, v2.RandomApply) else step for step in steps]
    kinds = {type(step) for step in inner}
    assert kinds == {Warp, ColourJitter, Dusk, Occlusion, v2.GaussianBlur, SensorNoise, Specks,
                     Compression}
