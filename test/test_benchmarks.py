"""How benchmarks count: ratios against the peer, exponents, plots, and what the README lists."""

from __future__ import annotations

import json
import math
from pathlib import Path
import re
import time

import cv2
import numpy as np
import pytest

tables = pytest.importorskip('benchmarks.lib.tables')
real_sets = pytest.importorskip('benchmarks.accuracy.real_sets')

ROOT = Path(__file__).resolve().parents[1]
MACHINE = {'processor': 'abacus', 'cores': 2, 'load': 0.5}


def test_a_race_gives_ratios_to_its_peer(capsys, monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(tables.time, 'perf_counter', lambda: clock[0])

    def timed(*milliseconds):
        """Return a call that takes so long by the clock, the first time, the second, ..."""
        durations = iter(milliseconds)

        def call():
            clock[0] += 1e-3 * next(durations)
        return call

    # The first call warms up. What slows a whole round down leaves its ratio as it is.
    result = tables.race('Digging', {'by hand': timed(90, 4, 24, 4, 5, 3),
                                     'by spade': timed(50, 1, 6, 1, 1, 1)}, 'by spade', 5, units=2)
    assert result['ratio'] == pytest.approx({'by hand': 4, 'by spade': 1})
    assert result['ratio_quartiles'] == {'by hand': pytest.approx([4, 4]),
                                         'by spade': pytest.approx([1, 1])}
    # Milliseconds are of each of the two units.
    assert result['median_ms'] == pytest.approx({'by hand': 2, 'by spade': 0.5})
    assert result['quartiles_ms']['by hand'] == pytest.approx([2, 2.5])
    assert 2.5 < result['p99_ms']['by spade'] < 3
    assert json.loads(json.dumps(result)) == result
    assert 'time / by spade' in capsys.readouterr().out


def test_a_race_times_real_calls() -> None:
    result = tables.race('Waiting', {'long': lambda: time.sleep(0.02), 'none': lambda: None},
                         'none', 3)
    assert result['median_ms']['long'] >= 20
    assert result['ratio']['long'] > 1
    low, high = result['ratio_quartiles']['long']
    assert low <= result['ratio']['long'] <= high


def test_calls_take_turns_in_blocks_after_a_round_that_does_not_count() -> None:
    order = []
    seconds = tables.in_turns({'a': lambda: order.append('a'), 'b': lambda: order.append('b')}, 2,
                              block=2)
    assert ''.join(order) == 'aabb' * 3
    assert [len(times) for times in seconds.values()] == [4, 4]


@pytest.mark.parametrize('power', [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(power) -> None:
    assert tables.exponent([(x, 3 * x ** power) for x in (1, 10, 50, 1000)]) == pytest.approx(
        power, abs=1e-9)


@pytest.mark.parametrize('figure', [
    tables.bars('Wide apart', 'ms', {'a': 1.0, 'b': 1000.0}, {'a': (0.5, 2.0)}, 10.0),
    tables.bars('One bar', 'share', {'a': 0.0}),
    tables.lines('Growth', 'places', 'ms', {'a': [(1, 1), (10, 9)], 'b': [(1, 2)]},
                 logarithmic=True)])
def test_every_kind_of_figure_is_drawn(tmp_path, figure) -> None:
    pytest.importorskip('matplotlib')
    from benchmarks.lib import plots
    plots.draw(tmp_path / 'plot.png', [figure, figure], MACHINE)
    assert cv2.imread(str(tmp_path / 'plot.png')).std() > 5


@pytest.mark.parametrize(('target', 'lowest'), [(0.01, 0.58), (0.05, 0.35), (0.001, math.inf)])
def test_a_threshold_is_the_lowest_whose_false_discoveries_are_surely_few(target, lowest) -> None:
    fdr = pytest.importorskip('benchmarks.accuracy.fdr')
    score = np.round(np.linspace(1, 0, 1001), 3)
    right = np.ones(1001, bool)
    right[score < 0.6] = np.arange((score < 0.6).sum()) % 10 != 0  # every tenth is wrong
    assert fdr.threshold(score, right, target) == pytest.approx(lowest, abs=0.02)
    assert ((~right[score >= lowest]).mean() if math.isfinite(lowest) else 0) <= target


def test_the_readme_lists_every_benchmark_that_make_bench_runs() -> None:
    names = re.findall(r"^        '(\w+)': lambda", (ROOT / 'benchmarks/__main__.py').read_text(),
                       re.M)
    readme = (ROOT / 'benchmarks/README.md').read_text()
    assert len(names) > 10
    assert [name for name in names if f'| `{name}` |' not in readme] == []


def test_published_methods_stand_beside_ours_the_best_first():
    compared = real_sets.beside_peers({'corridor': {
        'ways': {'centred': 0.8, 'projected': 0.7}, 'thumbnail_recall': {'1': 0.4}},
        'a map': {'places': 3}})
    assert list(compared) == ['corridor']
    methods = list(compared['corridor'])
    assert [methods.index(name) for name in ('HybridNet', 'vpr_ros, centred', 'DenseVLAD',
                                             'vpr_ros, projected')] == [0, 2, 3, 4]
    assert methods.index('thumbnails (SeqSLAM)') == len(methods) - 2  # CALC is the last
