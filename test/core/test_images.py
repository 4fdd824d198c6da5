"""Images from raw pixels and from files, and resizing."""

from __future__ import annotations

from pathlib import Path
import struct
from typing import TYPE_CHECKING
import zlib

import cv2
import numpy as np
import pytest
from vpr_ros.core import images
from vpr_ros.core import jpeg
from vpr_ros.core import raw_images
from vpr_ros.core.blank_images import check_content
from vpr_ros.core.errors import ImageError
from vpr_ros.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

HEIGHT, WIDTH = 24, 32
COLOUR = (200, 120, 40)
COLOURS = ('rgb8', 'bgr8', '8UC3', 'rgba8', 'bgra8', '8UC4')
GREYS = ('mono8', '8UC1', 'mono16', '16UC1')
BAYER = ('bayer_rggb8', 'bayer_bggr8', 'bayer_gbrg8', 'bayer_grbg8')
DEEP = tuple(name.replace('8', '16') for name in (*COLOURS, *BAYER))
YUV = ('uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2')


def test_every_encoding_is_tested() -> None:
    assert sorted((*COLOURS, *GREYS, *BAYER, *YUV, *DEEP)) == list(raw_images.ENCODINGS)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('encoding', COLOURS)
def test_colour_encodings_keep_every_pixel(encoding: str, padding: int) -> None:
    rgb = _noise(HEIGHT, WIDTH)
    red, green, blue = np.moveaxis(rgb, 2, 0)
    opaque = np.full_like(red, 255)
    planes = {'rgb8': (red, green, blue), 'rgba8': (red, green, blue, opaque),
              'bgr8': (blue, green, red), 'bgra8': (blue, green, red, opaque),
              '8UC3': (blue, green, red), '8UC4': (blue, green, red, opaque)}[encoding]
    data, step = _padded(np.stack(planes, axis=2), padding)
    np.testing.assert_array_equal(raw_images.from_raw(data, HEIGHT, WIDTH, encoding, step), rgb)


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('encoding', GREYS)
def test_grey_encodings_give_three_equal_channels(
        encoding: str, big_endian: bool, padding: int) -> None:
    grey = _noise(HEIGHT, WIDTH)[..., 0]
    pixels: np.ndarray = grey[..., None]
    if '16' in encoding:
        deep = grey.astype(np.uint16) * 256 + 77  # the low byte must not show
        pixels = deep.astype('>u2' if big_endian else '<u2').view(np.uint8).reshape(
            HEIGHT, WIDTH, 2)
    data, step = _padded(pixels, padding)
    rgb = raw_images.from_raw(data, HEIGHT, WIDTH, encoding, step, big_endian=big_endian)
    np.testing.assert_array_equal(rgb, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize('padding', [0, 3])
@pytest.mark.parametrize('encoding', BAYER)
def test_bayer_patterns_give_the_colour_of_the_scene(encoding: str, padding: int) -> None:
    mosaic = np.empty((HEIGHT, WIDTH, 1), np.uint8)
    for cell, letter in enumerate(encoding.removeprefix('bayer_')[:4]):
        mosaic[cell // 2::2, cell % 2::2] = COLOUR['rgb'.index(letter)]
    data, step = _padded(mosaic, padding)
    rgb = raw_images.from_raw(data, HEIGHT, WIDTH, encoding, step)
    assert np.abs(rgb.astype(int) - COLOUR).max() <= 1


@pytest.mark.parametrize('padding', [0, 4])
@pytest.mark.parametrize('encoding', YUV)
def test_yuv_pixel_pairs_give_their_colour(encoding: str, padding: int) -> None:
    red, green, blue = (value / 255 for value in COLOUR)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601, studio swing
    y = round(16 + 219 * luma)
    u = round(128 + 224 * (blue - luma) / 1.772)
    v = round(128 + 224 * (red - luma) / 1.402)
    pair = (y, u, y, v) if 'yuy' in encoding else (u, y, v, y)
    pixels = np.tile(np.array(pair, np.uint8), (HEIGHT, WIDTH // 2)).reshape(HEIGHT, WIDTH, 2)
    data, step = _padded(pixels, padding)
    rgb = raw_images.from_raw(data, HEIGHT, WIDTH, encoding, step)
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(rgb.astype(int) - COLOUR).max() <= 3


@pytest.mark.parametrize('encoding', DEEP)
def test_sixteen_bits_of_colour_give_the_colours_of_eight(encoding: str) -> None:
    channels = 1 if 'bayer' in encoding else 4 if 'a' in encoding or 'C4' in encoding else 3
    shallow = images.resize(_noise(6, 8), 120, 160)[..., [0, 1, 2, 0][:channels]]
    shallow[:8], shallow[8:16] = 0, 255
    expected = raw_images.from_raw(shallow.tobytes(), 120, 160, encoding.replace('16', '8'),
                                   160 * channels)
    for scale in (1, 4, 16, 256):
        deep = shallow.astype('<u2') * scale
        rgb = raw_images.from_raw(deep.tobytes(), 120, 160, encoding, 320 * channels)
        assert np.abs(rgb.astype(int) - expected).max() <= 2


@pytest.mark.parametrize('encoding', ['mono16', '16UC1'])
@pytest.mark.parametrize(('scale', 'offset'), [(1, 0), (4, 0), (16, 0), (64, 0), (256, 77),
                                               (4, 7000), (1, 29000)])
def test_sixteen_bits_are_scaled_to_what_the_image_holds(
        encoding: str, scale: int, offset: int) -> None:
    grey = images.resize(_noise(6, 8), 60, 80)[..., 0]
    grey[:4], grey[4:8] = 0, 255
    deep = grey.astype('<u2') * scale + np.uint16(offset)
    rgb = raw_images.from_raw(deep.tobytes(), 60, 80, encoding, 160)
    assert np.corrcoef(rgb[..., 0].ravel(), grey.ravel())[0, 1] > 0.99
    assert abs(rgb.mean() - grey.mean()) < 20


@pytest.mark.parametrize('encoding', ['mono16', 'bayer_rggb16'])
@pytest.mark.parametrize(('scale', 'offset'), [(4, 0), (16, 0), (256, 77), (4, 7000)])
def test_bytes_in_the_other_order_than_the_message_says_are_exchanged(
        encoding: str, scale: int, offset: int) -> None:
    grey = images.resize(_noise(6, 8), 120, 160)[..., 0]
    noise = np.random.default_rng(0).integers(0, min(scale, 16), grey.shape)
    deep = (grey.astype('<u2') * scale + np.uint16(offset) + noise).astype('<u2')
    right, wrong = (raw_images.from_raw(deep.tobytes(), 120, 160, encoding, 320, big_endian=said)
                    for said in (False, True))
    np.testing.assert_array_equal(wrong, right)


def test_the_scale_of_sixteen_bits_changes_smoothly_with_the_light() -> None:
    grey = images.resize(_noise(6, 8), 60, 80)[..., 0]
    means = [raw_images.to_8_bits((grey * light).astype(np.uint16)[..., None]).mean()
             for light in np.geomspace(4, 257, 400)]
    assert np.abs(np.diff(means)).max() < 5


@pytest.mark.parametrize('level', [40, 2000, 7500, 29000])
def test_a_covered_sixteen_bit_camera_shows_nothing(level: int) -> None:
    deep = np.random.default_rng(0).normal(level, level / 100, (120, 160)).astype('<u2')
    rgb = raw_images.from_raw(deep.tobytes(), 120, 160, 'mono16', 320)
    with pytest.raises(ImageError, match='shows nothing'):
        check_content(images.resize(rgb, 240, 320))


@pytest.mark.parametrize('encoding', YUV)
def test_yuv_of_an_odd_width_is_refused(encoding: str) -> None:
    with pytest.raises(ImageError, match='in pairs: its width cannot be 33'):
        raw_images.from_raw(bytes(HEIGHT * 66), HEIGHT, 33, encoding, 66)


@pytest.mark.parametrize('encoding', [*COLOURS, *GREYS, *BAYER])
def test_other_encodings_accept_an_odd_size(encoding: str) -> None:
    assert raw_images.from_raw(bytes(25 * 33 * 4), 25, 33, encoding, 33 * 4).shape == (25, 33, 3)


def test_rgb8_is_not_copied() -> None:
    data = np.zeros(HEIGHT * (WIDTH * 3 + 2), np.uint8)
    rgb = raw_images.from_raw(data, HEIGHT, WIDTH, 'rgb8', WIDTH * 3 + 2)
    assert np.shares_memory(rgb, data)


def test_an_unknown_encoding_is_refused_with_a_list_of_the_supported() -> None:
    with pytest.raises(ImageError, match=r"'nv21' is not supported; use one of .*bgr8"):
        raw_images.from_raw(bytes(10_000), HEIGHT, WIDTH, 'nv21', WIDTH)


@pytest.mark.parametrize(('height', 'width'), [
    (0, 0), (1, 1), (HEIGHT, 0), (images.MIN_SIDE - 1, 640), (640, images.MIN_SIDE - 1)])
def test_images_that_are_too_small_are_refused(height: int, width: int) -> None:
    with pytest.raises(ImageError, match=f'{width}x{height}: at least {images.MIN_SIDE}x'):
        raw_images.from_raw(bytes(height * width * 3), height, width, 'rgb8', width * 3)


def test_a_header_of_a_hundred_megapixels_is_refused_before_its_data_are_read() -> None:
    with pytest.raises(ImageError, match='10000x10000: more than 50 megapixels'):
        raw_images.from_raw(b'', 10_000, 10_000, 'rgb8', 30_000)


@pytest.mark.parametrize(('missing', 'step'), [
    (1, WIDTH * 3), (HEIGHT * WIDTH * 3, WIDTH * 3), (0, WIDTH * 3 - 1), (0, 0)])
def test_too_few_bytes_for_the_size_are_refused(missing: int, step: int) -> None:
    with pytest.raises(ImageError, match='32x24 rgb8 needs 24 rows of at least 96 bytes; got'):
        raw_images.from_raw(bytes(HEIGHT * WIDTH * 3 - missing), HEIGHT, WIDTH, 'rgb8', step)


def test_a_compressed_image_is_decoded_to_rgb() -> None:
    rgb = np.full((HEIGHT, WIDTH, 3), COLOUR, np.uint8)
    decoded = images.decode(images.encode_jpeg(rgb))
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize('deep', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_png_of_any_depth_gives_three_channels_of_eight_bits(channels: int, deep: type) -> None:
    pixels = np.full((HEIGHT, WIDTH, channels), np.iinfo(deep).max, deep)
    pixels[:4] = 0
    rgb = images.decode(_png(pixels))
    np.testing.assert_array_equal(rgb[:4], np.zeros((4, WIDTH, 3), np.uint8))
    np.testing.assert_array_equal(rgb[4:], np.full((HEIGHT - 4, WIDTH, 3), 255, np.uint8))


@pytest.mark.parametrize('data', [
    b'', b'not an image', b'\xff\xd8', b'\xff\xd8\xff', b'\xff\xd8' + b'\xff' * 20,
    b'\x89PNG\r\n\x1a\n', b'\x89PNG\r\n\x1a\n' + bytes(100)], ids=repr)
def test_bytes_that_are_not_an_image_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(ImageError, match='frame 7 is'):
        images.decode(data, 'frame 7')


def test_truncated_images_are_refused() -> None:
    rgb = _noise(HEIGHT, WIDTH)
    png = _png(rgb)
    for data in (png[:len(png) // 2], images.encode_jpeg(rgb)[:100]):
        with pytest.raises(ImageError, match='damaged'):
            images.decode(data)


@pytest.mark.parametrize('damage', [
    lambda jpeg, at: jpeg[:at] + jpeg[at + 512:], lambda jpeg, at: jpeg[:at] + jpeg,
    lambda jpeg, at: jpeg[:at], lambda jpeg, at: jpeg[:-2],
    lambda jpeg, at: jpeg[:at] + bytes(600) + jpeg[at + 600:]],
    ids=['bytes lost', 'next frame began', 'cut off', 'without EOI', 'zeros'])
@pytest.mark.parametrize('min_size', [None, (120, 160)])
def test_a_jpeg_damaged_inside_is_refused_without_a_line_of_libjpeg(
        capfd: pytest.CaptureFixture[str], damage: Callable[[bytes, int], bytes],
        min_size: tuple[int, int] | None) -> None:
    pytest.importorskip('simplejpeg')
    rng = np.random.default_rng(3)
    for _ in range(4):
        rgb = images.resize(rng.integers(0, 256, (48, 64, 3), np.uint8), 480, 640)
        jpeg = images.encode_jpeg(rgb, int(rng.integers(50, 96)))
        at = int(rng.integers(1000, len(jpeg) - 1000))
        with pytest.raises(ImageError, match='frame 7 is damaged: '):
            images.decode(damage(jpeg, at), 'frame 7', min_size)
    assert capfd.readouterr().err == ''


def test_bytes_that_a_camera_appends_to_a_whole_jpeg_do_no_harm() -> None:
    jpeg = images.encode_jpeg(_noise(HEIGHT, WIDTH))
    expected = images.decode(jpeg)
    for padded in (jpeg[:-2] + b'\0\0' + jpeg[-2:], jpeg + bytes(100)):
        np.testing.assert_array_equal(images.decode(padded), expected)


def test_a_few_bytes_more_than_a_camera_appends_are_damage() -> None:
    pytest.importorskip('simplejpeg')
    jpeg = images.encode_jpeg(_noise(HEIGHT, WIDTH))
    for count in range(8, 40):  # libjpeg says how many
        with pytest.raises(ImageError, match='extraneous bytes'):
            images.decode(jpeg[:-2] + b'\1' * count + jpeg[-2:])


def test_zeros_inside_a_small_jpeg_are_damage_however_many_blocks_they_make() -> None:
    jpeg = images.encode_jpeg(_smooth(120, 160), 80)
    for at in range(len(jpeg) // 2, len(jpeg) - 100):
        with pytest.raises(ImageError, match='damaged: '):
            images.decode(jpeg[:at] + bytes(64) + jpeg[at + 64:])


@pytest.mark.parametrize('suffix', ['.png', '.tiff'])
@pytest.mark.parametrize(('scale', 'offset'), [(4, 0), (16, 0), (256, 0), (4, 7000)])
@pytest.mark.parametrize('colours', [1, 3])
def test_files_of_sixteen_bits_are_scaled_to_what_they_hold(
        suffix: str, scale: int, offset: int, colours: int) -> None:
    shallow = images.resize(_noise(6, 8), 60, 80)[..., :colours]
    shallow[:4], shallow[4:8] = 0, 255
    deep = shallow.astype(np.uint16) * np.uint16(scale) + np.uint16(offset)
    rgb = images.decode(cv2.imencode(suffix, deep[..., ::-1])[1])
    assert rgb.shape == (60, 80, 3)
    assert np.corrcoef(rgb.ravel(), np.broadcast_to(shallow, rgb.shape).ravel())[0, 1] > 0.99
    assert abs(rgb.mean() - shallow.mean()) < 20


def test_a_file_of_float_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match='16 bits'):
        images.decode(cv2.imencode('.tiff', np.ones((HEIGHT, WIDTH, 3), np.float32))[1])


@pytest.mark.parametrize('orientation', [1, 6])
def test_a_jpeg_is_turned_by_its_exif_data(orientation: int) -> None:
    rgb = images.resize(_noise(6, 8), 48, 64)
    exif = (b'Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0' + bytes([orientation])
            + bytes(6))
    jpeg = images.encode_jpeg(rgb)
    marked = jpeg[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + jpeg[2:]
    turned = np.rot90(rgb, -1) if orientation == 6 else rgb
    assert np.abs(images.decode(marked).astype(int) - turned).mean() < 10
    with pytest.raises(ImageError, match='damaged'):
        images.decode(marked[:-200])


def test_a_jpeg_without_simplejpeg_is_decoded_by_opencv(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    jpeg_data = images.encode_jpeg(images.resize(_noise(24, 32), 480, 640))
    expected = [images.decode(jpeg_data, min_size=size) for size in (None, (120, 160))]
    monkeypatch.setattr(jpeg, 'simplejpeg', None)
    jpeg._warn_of_missing.cache_clear()
    for size, rgb in zip((None, (120, 160)), expected, strict=True):
        np.testing.assert_allclose(images.decode(jpeg_data, min_size=size), rgb, atol=3)
    assert caplog.text.count('pip install simplejpeg') == 1


def test_a_tiny_compressed_image_is_refused() -> None:
    with pytest.raises(ImageError, match='image is 1x1: at least'):
        images.decode(_png(np.zeros((1, 1, 3), np.uint8)))


@pytest.mark.parametrize('suffix', ['png', 'jpeg'])
def test_a_small_file_that_declares_a_huge_image_is_refused_by_its_header(suffix: str) -> None:
    data = _png_bomb() if suffix == 'png' else _jpeg_bomb()
    with pytest.raises(ImageError, match='20000x20000: more than 50 megapixels'):
        images.decode(data)


def test_an_image_file_is_read_and_named_when_it_is_damaged(tmp_path: Path) -> None:
    rgb = _noise(HEIGHT, WIDTH)
    (tmp_path / 'good.png').write_bytes(_png(rgb[..., ::-1]))
    np.testing.assert_array_equal(images.read(tmp_path / 'good.png'), rgb)
    (tmp_path / 'bad.png').write_bytes(b'bad')
    with pytest.raises(ImageError, match=r'bad\.png'):
        images.read(tmp_path / 'bad.png')
    with pytest.raises(FileNotFoundError, match=r'missing\.png'):
        images.read(tmp_path / 'missing.png')


def test_the_images_of_a_folder_are_listed_by_name(tmp_path: Path) -> None:
    for name in ('b.JPG', 'a.png', 'poses.csv', 'c.jpeg'):
        (tmp_path / name).write_bytes(b'')
    assert [path.name for path in images.list_folder(tmp_path)] == ['a.png', 'b.JPG', 'c.jpeg']


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match='has no images'):
        images.list_folder(tmp_path)
    with pytest.raises(SourceError, match='nowhere is not a folder'):
        images.list_folder(tmp_path / 'nowhere')


def test_resizing_to_the_same_size_returns_the_image_itself() -> None:
    rgb = _noise(HEIGHT, WIDTH)
    assert images.resize(rgb, HEIGHT, WIDTH) is rgb


def test_shrinking_averages_over_areas() -> None:
    rgb = _noise(HEIGHT, WIDTH)
    blocks = rgb.reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean(axis=(1, 3))
    small = images.resize(rgb, HEIGHT // 4, WIDTH // 4)
    assert np.abs(small - blocks).max() <= 1  # halved twice, rounded twice


@pytest.mark.parametrize('size', [(2 * HEIGHT, 2 * WIDTH), (2 * HEIGHT, WIDTH // 2)])
def test_enlarging_in_one_direction_interpolates(size: tuple[int, int]) -> None:
    ramp = np.repeat(np.arange(HEIGHT, dtype=np.uint8)[:, None] * 10, WIDTH, axis=1)
    enlarged = images.resize(np.repeat(ramp[..., None], 3, axis=2), *size)
    assert enlarged.shape == (*size, 3)
    expected = np.clip((np.arange(2 * HEIGHT) + 0.5) / 2 - 0.5, 0, HEIGHT - 1) * 10
    assert np.abs(enlarged[:, 0, 0] - expected).max() <= 1


def test_images_side_by_side_have_one_height_and_keep_their_aspect_ratios() -> None:
    row = images.side_by_side([_noise(24, 32), _noise(48, 32)], 48)
    assert row.shape == (48, 64 + 32, 3)


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _padded(pixels: np.ndarray, padding: int) -> tuple[bytes, int]:
    """Return rows (H,W,C) as bytes with `padding` arbitrary bytes after each, and the step."""
    rows = pixels.reshape(len(pixels), -1)
    data = np.hstack([rows, np.full((len(rows), padding), 251, np.uint8)])
    return data.tobytes(), data.shape[1]


def _smooth(height: int, width: int) -> np.ndarray:
    return cv2.resize(_noise(30, 40), (width, height), interpolation=cv2.INTER_CUBIC)


def _png(pixels: np.ndarray) -> bytes:
    return bytes(cv2.imencode('.png', pixels)[1])


def _png_bomb() -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', checksum)
    header = struct.pack('>IIBBBBB', 20_000, 20_000, 8, 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
            + chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b''))


def _jpeg_bomb() -> bytes:
    data = bytearray(images.encode_jpeg(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    frame = data.index(b'\xff\xc0')
    data[frame + 5:frame + 9] = struct.pack('>HH', 20_000, 20_000)
    comment = b'\xff\xfe' + struct.pack('>H', 60_002) + bytes(60_000)
    return bytes(data[:2] + comment + data[2:])


def test_an_image_is_resized_into_the_given_array() -> None:
    rgb = _noise(240, 320)
    for size in ((60, 80), (240, 320), (33, 47)):
        out = np.full((*size, 3), 7, np.uint8)
        images.resize(rgb, *size, out=out)
        np.testing.assert_array_equal(out, images.resize(rgb, *size))


@pytest.mark.parametrize('pixels', [np.zeros((240, 320), np.uint8),
                                    np.zeros((240, 320, 3), np.float32),
                                    np.zeros((240, 320, 4), np.uint8)],
                         ids=['grey', 'float', 'alpha'])
def test_other_shapes_and_types_are_not_resized_into_the_given_array(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match='cannot be resized into'):
        images.resize(pixels, 60, 80, out=np.zeros((60, 80, 3), np.uint8))


@pytest.mark.parametrize('size', [(480, 640), (720, 1280), (1080, 1920), (1081, 1921)])
def test_halving_a_large_image_first_hardly_changes_the_result(size: tuple[int, int]) -> None:
    rgb = _smooth(*size)
    one_step = cv2.resize(rgb, (160, 128), interpolation=cv2.INTER_AREA)
    difference = np.abs(images.resize(rgb, 128, 160).astype(int) - one_step)
    assert difference.mean() < 1.5
    assert difference.max() < 16


@pytest.mark.parametrize(('size', 'min_size', 'expected'), [
    ((480, 640), (120, 160), (240, 320)),
    ((480, 640), (240, 320), (480, 640)),
    ((482, 642), (120, 160), (241, 321)),
    ((481, 640), (120, 160), (481, 640)),
    ((960, 1280), (120, 160), (480, 640)),
    ((480, 640), None, (480, 640)),
])
def test_a_jpeg_that_would_be_halved_is_decoded_at_half_its_size(
        size: tuple[int, int], min_size: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    jpeg = images.encode_jpeg(_smooth(*size))
    assert images.decode(jpeg, min_size=min_size).shape == (*expected, 3)


def test_a_jpeg_decoded_at_half_size_hardly_differs_from_one_halved_later() -> None:
    jpeg = images.encode_jpeg(_smooth(480, 640), 95)
    half, full = images.decode(jpeg, min_size=(120, 160)), images.decode(jpeg)
    difference = images.resize(half, 120, 160).astype(int) - images.resize(full, 120, 160)
    assert np.abs(difference).max() <= 8
    assert np.abs(difference).mean() < 1


def test_a_png_is_decoded_at_full_size() -> None:
    assert images.decode(_png(_smooth(480, 640)), min_size=(120, 160)).shape == (480, 640, 3)


def test_a_slightly_larger_image_is_resized_by_area_exactly() -> None:
    rgb = _noise(360, 480)
    np.testing.assert_array_equal(
        images.resize(rgb, 128, 160),
        cv2.resize(rgb, (160, 128), interpolation=cv2.INTER_AREA))
