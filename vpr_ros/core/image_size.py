"""
What the header of a compressed image declares, read before a decoder allocates for it.

Decoders believe a file: 42 bytes that claim a chunk of 4 GB let OpenCV fill 4 GB with zeros. Only
formats whose headers are read here are decoded at all. JPEG is in jpeg.py.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Size = tuple[int, int]
"""Height and width in pixels."""

_PNM = re.compile(rb'P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s')
_TIFF_WIDTHS, _TIFF_HEIGHTS = (256, 322), (257, 323)  # of the image, and of its tiles
_TIFF_SAMPLES, _TIFF_BITS = 277, 258
_TIFF_TAGS = (*_TIFF_WIDTHS, *_TIFF_HEIGHTS, _TIFF_SAMPLES, _TIFF_BITS)
_TIFF_TYPES = {3: 'H', 4: 'I'}

_MOST_CHUNKS = 1 << 16


def declared_size(data: memoryview) -> Size:
    """
    Return the largest height and width that a PNG, WebP, BMP, PNM or TIFF file declares.

    Raises ValueError for another format, for an animation, and where parts of the file are larger
    than the file.
    """
    lead = bytes(data[:12])
    if lead.startswith(b'\x89PNG\r\n\x1a\n'):
        return _png(data)
    if lead.startswith(b'RIFF') and lead.endswith(b'WEBP'):
        return _webp(data)
    if lead.startswith(b'BM'):
        return _bmp(data)
    if lead[:4] in (b'II*\0', b'MM\0*'):
        return _tiff(data)
    pnm = _PNM.match(bytes(data[:1024]))
    if pnm is None:
        raise ValueError('it is no JPEG, PNG, WebP, BMP, PNM or TIFF')
    return int(pnm[2]), int(pnm[1])


def _chunks(data: memoryview, *, png: bool) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, start and size of each chunk; none of them is larger than the file."""
    at = 8 if png else 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        if png:  # its chunks end with a checksum, those of RIFF on an even byte
            size, name = struct.unpack_from('>I4s', data, at)
            end = at + 8 + size + 4
        else:
            name, size = struct.unpack_from('<4sI', data, at)
            end = at + 8 + size
        if end > len(data):
            raise ValueError(f'its part {ascii(name)[1:]} ends beyond the file')
        yield name, at + 8, size
        at = end if png else end + size % 2
    raise ValueError('it has too many parts')


def _png(data: memoryview) -> Size:
    size = None
    for name, at, length in _chunks(data, png=True):
        if (name == b'IHDR') != (size is None) or (name == b'IHDR' and length != 13):
            raise ValueError('its header is damaged')
        if size is None:
            width, height = struct.unpack_from('>II', data, at)
            size = height, width
        if name == b'acTL':
            raise ValueError('it is an animation')
        if name == b'IEND':
            return size
    raise ValueError('it has no end')


def _webp(data: memoryview) -> Size:
    sizes = []
    for name, at, length in _chunks(data, png=False):
        head = bytes(data[at:at + min(length, 10)])
        if name == b'VP8X' and len(head) == 10:
            if head[0] & 2:
                raise ValueError('it is an animation')
            sizes.append((1 + int.from_bytes(head[7:10], 'little'),
                          1 + int.from_bytes(head[4:7], 'little')))
        elif name == b'VP8 ' and len(head) == 10:
            width, height = struct.unpack_from('<HH', head, 6)
            sizes.append((height & 0x3FFF, width & 0x3FFF))
        elif name == b'VP8L' and len(head) >= 5:
            bits = int.from_bytes(head[1:5], 'little')
            sizes.append((1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)))
    return _largest(sizes)


def _bmp(data: memoryview) -> Size:
    if len(data) < 26:
        raise ValueError('it has no header')
    short = struct.unpack_from('<I', data, 14)[0] == 12
    width, height = struct.unpack_from('<HH' if short else '<ii', data, 18)
    return abs(height), abs(width)


def _tiff(data: memoryview) -> Size:
    """Read the first page: the only one that is decoded."""
    order = '<' if data[0] == 0x49 else '>'
    tags = {}
    try:
        at, = struct.unpack_from(f'{order}I', data, 4)
        count, = struct.unpack_from(f'{order}H', data, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f'{order}HHI', data, entry)
            if tag in _TIFF_TAGS:
                layout = f'{order}{_TIFF_TYPES[kind]}'
                inline = values * struct.calcsize(layout) <= 4
                place = entry + 8 if inline else struct.unpack_from(f'{order}I', data,
                                                                    entry + 8)[0]
                tags[tag], = struct.unpack_from(layout, data, place)
    except (struct.error, KeyError) as error:
        raise ValueError('its header is damaged') from error
    if tags.get(_TIFF_SAMPLES, 1) > 4 or tags.get(_TIFF_BITS, 8) > 16:
        raise ValueError('it has more than four channels of 16 bits')
    return (max(tags.get(tag, 0) for tag in _TIFF_HEIGHTS),
            max(tags.get(tag, 0) for tag in _TIFF_WIDTHS))


def _largest(sizes: list[Size]) -> Size:
    if not sizes:
        raise ValueError('it has no header')
    return max(height for height, _ in sizes), max(width for _, width in sizes)
