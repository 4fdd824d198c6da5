"""The report, in a real browser: it opens without errors, and a click shows the images."""

from __future__ import annotations

from dataclasses import replace
import shutil
import warnings

import numpy as np
import pytest
from vpr_ros.core import poses
from vpr_ros.core.errors import VprError
from vpr_ros.offline.evaluation import Estimates
from vpr_ros.offline.evaluation import Evaluation
from vpr_ros.offline.evaluation import References
from vpr_ros.offline.report import _mistakes
from vpr_ros.offline.report import write_report

COUNT = 40
EVIL = '</script><img src=x onerror="document.title=1">.png'


def image(number):
    return np.random.default_rng(number).integers(0, 255, (60, 80, 3), np.uint8)


@pytest.fixture(scope='module')
def evaluation():
    """Return an evaluation of a drive of which the last ten frames are off the map."""
    random = np.random.default_rng(0)
    places = poses.planar(np.arange(COUNT, dtype=float), np.zeros(COUNT), np.zeros(COUNT))
    truth = places.copy()
    estimated = places + np.concatenate([random.normal(0, 0.5, (COUNT, 2)),
                                         np.zeros((COUNT, 5))], axis=1)
    estimated[3, 0] += 20
    mapped = np.arange(COUNT) < COUNT - 10
    right = mapped & (np.arange(COUNT) != 3)
    confidence = np.where(right, 0.98, 0.4)
    confidence[3] = 0.97
    return Evaluation(
        query_names=(EVIL, *(f'frame {n}' for n in range(1, COUNT))), query_image=image,
        estimates=Estimates(
            stamps=np.arange(COUNT) * 10**9, poses=estimated,
            covariances=np.tile(np.eye(6), (COUNT, 1, 1)), confidence=confidence,
            reasons=tuple('' if sure > 0.95 else 'off the map' for sure in confidence),
            candidates=np.tile(np.arange(COUNT)[:, None], (1, 3)),
            similarity=np.full((COUNT, 3), 0.5, np.float32),
            inliers=np.where(right, 40, 0), place_positions=truth[:, :3] + [0.0, 1.5, 0.0],
            protection_levels=np.where(right, 4.0, np.inf)),
        references=References(
            poses=places, names=tuple(f'place {n}' for n in range(COUNT)),
            image=lambda place: None if place == 7 else image(100 + place)),
        true_poses=np.where(mapped[:, None], truth, np.nan),
        true_places=np.where(mapped, np.arange(COUNT), -1), ranks=np.zeros(COUNT, np.int64),
        right=right, tolerance='5 m', min_confidence=0.95, use_filter=True,
        stage_seconds={'locate': random.uniform(0, 1e-3, COUNT)},
        about={'drive': 'a drive', 'model': 'f' * 64})


@pytest.fixture(scope='module')
def browser():
    """Return a headless Chromium; the tests that want one are skipped, loudly, where none is."""
    playwright = pytest.importorskip('playwright.sync_api')
    system = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser',
                                                  'google-chrome'))), None)
    with playwright.sync_playwright() as running:
        try:
            opened = running.chromium.launch(executable_path=system, args=['--no-sandbox'])
        except playwright.Error as error:
            warnings.warn(f'NO CHROMIUM: the report is not tested in a browser ({error})',
                          stacklevel=1)
            pytest.skip('NO CHROMIUM: the report is not tested in a browser')
        yield opened
        opened.close()


def opened(browser, path, width=1280, **options):
    """Return the report in a page, and the list that its errors go to."""
    page = browser.new_page(viewport={'width': width, 'height': 800}, **options)
    errors = []
    page.on('console', lambda message: errors.append(message.text)
            if message.type in ('error', 'warning') else None)
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_selector('html[data-ready=yes]')
    return page, errors


@pytest.mark.parametrize('width', [1280, 400])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_opens_without_errors_and_fits(evaluation, browser, tmp_path, width, scheme):
    write_report(evaluation, tmp_path / 'report.html')
    page, errors = opened(browser, tmp_path / 'report.html', width, color_scheme=scheme)
    assert errors == []
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert page.locator('.point[data-query]').count() == COUNT
    assert page.locator('.point.wrong[data-query]').count() == 1
    assert ('dark' in (page.locator('html').get_attribute('class') or '')) == (scheme == 'dark')
    page.click('#theme')
    assert ('dark' in (page.locator('html').get_attribute('class') or '')) != (scheme == 'dark')
    page.close()


def test_a_click_and_the_arrow_keys_show_the_images(evaluation, browser, tmp_path):
    write_report(evaluation, tmp_path / 'report.html')
    page, errors = opened(browser, tmp_path / 'report.html')
    assert 'WRONG pose, 97 % confident' in page.inner_text('#verdict')  # the worst is shown first
    page.locator('.point[data-query="12"]').dispatch_event('click')
    assert page.inner_text('#query-caption') == 'frame 12'
    assert page.evaluate('document.getElementById("query-image").naturalWidth') == 80
    page.keyboard.press('ArrowRight')
    assert page.inner_text('#query-caption') == 'frame 13'
    assert page.inner_text('#truth-caption') == 'ground truth: place 13'
    page.locator(f'.point[data-query="{COUNT - 1}"]').dispatch_event('click')
    assert 'no pose (off the map)' in page.inner_text('#verdict')
    assert 'not on the map' in page.inner_text('#truth-caption')
    page.keyboard.press('ArrowRight')
    assert page.inner_text('#query-caption') == EVIL
    assert page.title() == 'vpr_ros: evaluation'
    assert page.inner_text('.mistakes button.wrong').startswith('published')
    assert page.locator('.mistakes button').nth(1).inner_text().startswith(
        'withheld (off the map)')
    page.locator('.mistakes button').first.focus()
    page.keyboard.press('Enter')
    assert page.inner_text('#query-caption') == 'frame 3'
    assert errors == []
    page.close()


def test_a_set_without_metric_poses_shows_its_order(evaluation, browser, tmp_path):
    write_report(replace(evaluation, metric=False, stage_seconds={}), tmp_path / 'report.html')
    page, errors = opened(browser, tmp_path / 'report.html')
    assert errors == []
    assert 'place number' in page.locator('#map').text_content()
    assert 'only for drives with metric poses' in page.inner_text('#errors')
    page.close()


def test_a_drive_that_is_nowhere_on_the_map_is_shown(evaluation, browser, tmp_path):
    write_report(replace(evaluation, true_places=np.full(COUNT, -1), right=np.zeros(COUNT, bool)),
                 tmp_path / 'report.html')
    page, errors = opened(browser, tmp_path / 'report.html')
    assert 'unmapped queries with a published pose' in page.inner_text('body')
    assert not errors


def test_published_mistakes_come_first(evaluation):
    confidence = evaluation.estimates.confidence.copy()
    confidence[20] = 0.99
    reasons = tuple('ambiguous' if n in (20, 30) else '' for n in range(COUNT))
    wrong = replace(evaluation, right=np.isin(np.arange(COUNT), (3, 20, 30, 35), invert=True),
                    estimates=replace(evaluation.estimates, confidence=confidence,
                                      reasons=reasons))
    assert _mistakes(wrong).tolist() == [3, 35, 20, 30]


def test_many_images_are_made_small(evaluation, tmp_path):
    large = replace(
        evaluation.take(np.arange(600) % COUNT),
        query_image=lambda n: np.random.default_rng(n).integers(0, 255, (480, 640, 3), np.uint8))
    write_report(large, tmp_path / 'report.html')
    assert 3e6 < (tmp_path / 'report.html').stat().st_size < 15e6


def test_nothing_is_left_when_it_cannot_be_written(evaluation, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(VprError, match='cannot create the folder'):
        write_report(evaluation, tmp_path / 'file' / 'report.html')
    assert [path.name for path in tmp_path.iterdir()] == ['file']
