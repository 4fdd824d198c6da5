"""Figures with captions on one HTML page that needs neither a server nor a network."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence


def write_gallery(path: str | Path, title: str, panels: Sequence[tuple[str, str, Path]],
                  lines: Sequence[str] = ()) -> None:
    """
    Write a page of `panels`: (heading, caption, PNG file) each.

    `lines` of text come first.
    """
    style = (resources.files('vpr_ros.offline') / 'page' / 'report.css').read_text('utf-8')
    sections = ''.join(
        f'<section><h2>{escape(heading)}</h2><p>{escape(caption)}</p><img alt="{escape(heading)}" '
        f'src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"></section>'
        for heading, caption, file in panels)
    text = ''.join(f'<p>{escape(line)}</p>' for line in lines)
    with whole_file(path) as part:
        part.write_text(
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(title)}</title><style>{style}section{{margin:.8rem 0}}'
            'section img{max-width:100%;display:block;border-radius:4px}</style></head>'
            f'<body><h1>{escape(title)}</h1>{text}{sections}</body></html>', encoding='utf-8')
