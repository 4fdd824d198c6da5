"""Compressed images from anybody: what they declare is bounded before a decoder believes it."""

from __future__ import annotations

import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from vpr_ros.core import images
from vpr_ros.core.errors import ImageError
from vpr_ros.core.image_size import declared_size

HEIGHT, WIDTH = 24, 37
FORMATS = {
    'png': ('.png', []), 'bmp': ('.bmp', []), 'ppm': ('.ppm', []), 'tiff': ('.tiff', []),
    'webp': ('.webp', [cv2.IMWRITE_WEBP_QUALITY, 60]),
    'lossless webp': ('.webp', [cv2.IMWRITE_WEBP_QUALITY, 101])}


def _encoded(name: str) -> bytes:
    suffix, options = FORMATS[name]
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return bytes(cv2.imencode(suffix, rgb, options)[1])


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + kind + content
        + struct.pack('>I', zlib.crc32(kind + content)) for kind, content in chunks)


def _header(width: int = 40, height: int = 30) -> tuple[bytes, bytes]:
    return b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)


PIXELS = b'IDAT', zlib.compress(bytes(30 * (1 + 3 * 40)))
END = b'IEND', b''


def _refused_at_once(data: bytes, reason: str) -> None:
    begin = time.process_time()
    with pytest.raises(ImageError, match=reason):
        images.decode(data)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize('name', FORMATS)
def test_the_size_in_a_header_is_that_of_the_image(name: str) -> None:
    data = _encoded(name)
    assert declared_size(memoryview(data)) == (HEIGHT, WIDTH)
    assert images.decode(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(('name', 'at', 'value'), [
    ('png', 16, struct.pack('>II', 30_000, 30_000)),
    ('bmp', 18, struct.pack('<ii', 30_000, -30_000)),
    ('ppm', 0, b'P6\n30000 30000\n255\n'),
    ('webp', 26, struct.pack('<HH', 16_000, 16_000)),
    ('lossless webp', 21, struct.pack('<I', 15_999 | 15_999 << 14))])
def test_a_huge_image_is_refused_by_its_header(name: str, at: int, value: bytes) -> None:
    data = _encoded(name)
    _refused_at_once(data[:at] + value + data[at + len(value):], 'more than 50 megapixels')


@pytest.mark.parametrize('tag', [256, 257, 322, 323])
def test_a_huge_tiff_is_refused_by_its_header(tag: int) -> None:
    entries = {256: 4000, 257: 4000, 258: 8, 277: 3, 322: 16, 323: 16, tag: 50_000}
    data = b'II*\0' + struct.pack('<IH', 8, len(entries)) + b''.join(
        struct.pack('<HHII', number, 4, 1, value) for number, value in entries.items()) + bytes(9)
    _refused_at_once(data, 'more than 50 megapixels')


@pytest.mark.parametrize('place', [0, 1, 2, 3])
@pytest.mark.parametrize('length', [0xFFFFFFF0, 0x7FFFFFFF, 5000])
def test_a_png_with_a_part_larger_than_the_file_is_refused(place: int, length: int) -> None:
    chunks = [_header(), (b'tEXt', b'a\0b'), PIXELS, END]
    data = bytearray(_png(*chunks))
    at = len(_png(*chunks[:place]))
    data[at:at + 4] = struct.pack('>I', length)
    _refused_at_once(bytes(data), 'ends beyond the file')


@pytest.mark.parametrize(('chunks', 'reason'), [
    ([_header(), _header(30_000, 30_000), PIXELS, END], 'header is damaged'),
    ([PIXELS, END], 'header is damaged'), ([_header(), PIXELS], 'it has no end'),
    ([(b'IHDR', bytes(12)), PIXELS, END], 'header is damaged'),
    ([_header(), (b'acTL', struct.pack('>II', 9, 9)), PIXELS, END], 'animation'),
    ([_header(), *[(b'tIME', b'')] * 70_000, PIXELS, END], 'too many parts')])
def test_a_png_that_no_camera_makes_is_refused(
        chunks: list[tuple[bytes, bytes]], reason: str) -> None:
    _refused_at_once(_png(*chunks), reason)


def test_a_png_with_text_in_it_is_decoded() -> None:
    data = _png(_header(), (b'tEXt', b'a\0b'), PIXELS, END)
    assert images.decode(data + b'more').shape == (30, 40, 3)


def test_the_canvas_of_a_webp_counts_and_an_animation_is_refused() -> None:
    data = _encoded('webp')
    for flags, reason in ((0, 'more than 50 megapixels'), (2, 'animation')):
        extended = struct.pack('<4sI', b'VP8X', 10) + bytes([flags, 0, 0, 0]) + b'\xff\xff\0' * 2
        _refused_at_once(data[:12] + extended + data[12:], reason)


@pytest.mark.parametrize('data', [
    b'\xff\xd8' + b'\xff' * 3_000_000, b'\xff\xd8' + b'\xff\xe0\0\0' * 1_000_000])
def test_a_jpeg_without_an_image_is_refused_at_once(data: bytes) -> None:
    _refused_at_once(data, 'header of the JPEG has no end')


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    rgb = np.zeros((4000, 6000, 3), np.uint8)
    data = bytes(cv2.imencode('.jpg', rgb, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])
    assert images.decode(data).shape == rgb.shape
    last = data.rindex(b'\xff\xda')
    _refused_at_once(data[:last] + data[last:-2] * 100 + data[-2:], 'more channels or scans')


@pytest.mark.parametrize('data', [
    b'GIF89a' + bytes(99), b'#?RADIANCE\n' + bytes(99), b'v/1\x01' + bytes(99), b'',
    b'\0\0\0\x0cjP  \r\n\x87\n' + bytes(99), b'\x59\xa6\x6a\x95' + bytes(99), b'P7\nWIDTH 9\n'])
def test_formats_whose_headers_are_not_read_are_not_decoded(data: bytes) -> None:
    with pytest.raises(ImageError, match=r'no JPEG, PNG, WebP, BMP, PNM or TIFF|is empty'):
        images.decode(data)
