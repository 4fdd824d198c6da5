"""The page of figures: complete, and with nothing loaded from elsewhere."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from vpr_ros.offline.gallery import write_gallery


def test_figures_and_captions_are_in_the_page(tmp_path):
    figure = tmp_path / 'p.png'
    cv2.imwrite(str(figure), np.zeros((4, 4, 3), np.uint8))
    write_gallery(tmp_path / 'page.html', 'a <title>', [('Words & all', '1 < 2', figure)])
    page = (tmp_path / 'page.html').read_text()
    assert base64.b64encode(figure.read_bytes()).decode() in page
    assert 'a &lt;title&gt;' in page
    assert 'Words &amp; all' in page
    assert '1 &lt; 2' in page
    assert 'http' not in page
