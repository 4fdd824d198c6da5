"""The front door: the snippets of docs/python.md run as they stand."""

from __future__ import annotations

from pathlib import Path
import re

import cv2
import pytest
from vpr_ros import __all__ as front_door
from vpr_ros.localization.estimate import Estimate
from vpr_ros.street import drive
from vpr_ros.street import Town
from vpr_ros.street.record import record

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / 'docs' / 'python.md'
SNIPPET = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LENGTH, RATE = 160.0, 4.0


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Go to a folder that holds what the page begins with: two bags, and a video of the second."""
    monkeypatch.chdir(tmp_path)
    town = Town(7)
    record('winter.mcap', drive(town, condition='winter', length=LENGTH, rate=RATE))
    frames = list(drive(town, condition='spring', seed=1, lateral_offset=0.5, length=LENGTH,
                        rate=RATE))
    record('spring.mcap', frames)
    height, width = frames[0].image.shape[:2]
    video = cv2.VideoWriter('drive.mp4', cv2.VideoWriter.fourcc(*'mp4v'), RATE, (width, height))
    for frame in frames:
        video.write(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    video.release()
    return frames


def test_the_snippets_of_the_guide_run_in_their_order(site, capsys):
    snippets = SNIPPET.findall(GUIDE.read_text())
    ten_lines = next(snippet for snippet in snippets if 'VideoCapture' in snippet)
    assert len([line for line in ten_lines.splitlines() if line]) <= 10
    names = {}
    for snippet in snippets:
        exec(compile(snippet, GUIDE.name, 'exec'), names)
        if snippet == ten_lines:
            printed = capsys.readouterr().out.splitlines()
            assert len(printed) == len(site)
            assert any('[' in line for line in printed), 'no frame of the video got a pose'
    assert max(names['errors']) < 5.0


def test_the_guide_names_the_front_door_and_every_attribute_of_an_estimate():
    text = GUIDE.read_text()
    imported = re.search(r'^from vpr_ros import (.*)$', text, re.MULTILINE)[1]
    assert set(imported.split(', ')) == set(front_door)
    rows = set(re.findall(r'^\| `(\w+)` \|', text, re.MULTILINE))
    assert rows == {'trusted', *Estimate.__dataclass_fields__}
