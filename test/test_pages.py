"""Every page of documentation: its links, and the files and modules that it names, are there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
import re

import pytest
from vpr_ros.maps.calibration import Calibration
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *(page for folder in ('docs', 'benchmarks', 'models')
                                      for page in (ROOT / folder).glob('*.md'))])

LINK = re.compile(r'\]\(([^)#]*)(?:#([^)]*))?\)')
FILE = re.compile(r'(?<![\w/.-])(?:vpr_ros|benchmarks|test|examples|experiments|config|launch|docs'
                  r')/[\w./-]+\.\w+\b')
MODULE = re.compile(r'python3? -m ((?:benchmarks|vpr_ros)[\w.]*\w)')
EXAMPLES = {'benchmarks/results/NAME.json'}
"""Names that stand for those of files that a command will write."""

every_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page):
    """Return what a link to a page may end in: its headings, as GitHub writes them."""
    headings = re.findall(r'^#+ (.*)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@every_page
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith('http'):
            continue
        file = (page.parent / target) if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f'{target}#{anchor}'


@every_page
def test_the_files_and_modules_that_a_page_names_exist(page):
    text = page.read_text()
    files = {name for name in FILE.findall(text) if not (ROOT / name).exists()}
    modules = {name for name in MODULE.findall(text) if find_spec(name) is None}
    assert files - EXAMPLES == set()
    assert modules == set()


def test_the_readme_leads_to_every_page():
    listed = {target for target, _ in LINK.findall((ROOT / 'README.md').read_text())}
    assert {f'docs/{page.name}' for page in (ROOT / 'docs').glob('*.md')} <= listed


def test_the_documented_calibration_is_the_default():
    text = (ROOT / 'docs' / 'file-formats.md').read_text()
    block = re.search(r'^```yaml\n(calibration:\n.*?)^```$', text, re.MULTILINE | re.DOTALL)[1]
    assert yaml.safe_load(block)['calibration'] == Calibration().as_dict()
