"""
How long an evaluation takes beside the network alone, and whether its recall is right.

`--data DIR`: real sets (benchmarks/README.md); the largest is timed, and the recall of each is
computed again with numpy. A report of 2,000 queries, repeated from the largest set, is opened in
headless Chromium.
"""

from __future__ import annotations

from pathlib import Path
import shutil
import sys
import tempfile
import time
from typing import Any
from typing import TYPE_CHECKING

from benchmarks.lib import tables
from benchmarks.lib.encoding import descriptors
from benchmarks.lib.encoding import encode_all
from benchmarks.lib.sets import add_data_option
from benchmarks.lib.sets import answer
from benchmarks.lib.sets import find_sets
import numpy as np
from vpr_ros.core import images
from vpr_ros.core.metrics import RECALLS
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.io.ground_truth import read_ground_truth
from vpr_ros.maps.place_map import centre
from vpr_ros.offline.descriptors import BATCH
from vpr_ros.offline.evaluate_images import evaluate_set
from vpr_ros.offline.localize_queries import EvaluationOptions
from vpr_ros.offline.report import write_report
from vpr_ros.offline.summary import summary

if TYPE_CHECKING:
    from vpr_ros.offline.evaluation import Evaluation

SHARE_TARGET = 0.8
QUERIES = 2000
MEGABYTES, SECONDS = 15.0, 2.0
"""Targets for a report of QUERIES queries: its size, and the time until it is displayed."""
ROUNDS = 3


def evaluation(data: str, model: str | None = None) -> dict[str, Any]:
    """Measure on the sets in `data`; return the figures."""
    encoder = Encoder(model, throughput=True)
    sets = {one.name: (one.database, one.queries, one.ground_truth)
            for one in find_sets(data) if one.has_queries}
    rows, largest = [], max(sets, key=lambda name: len(images.list_folder(sets[name][0])))
    results = {}
    for name, paths in sets.items():
        results[name] = evaluate_set(*paths, encoder, EvaluationOptions(
            use_filter=False, centering='map', projection='model'))
        ours, plain = summary(results[name])['recall'], _plain(*paths, encoder)
        rows.append([name, *(part for n, share in ours.items() for part in (share, plain[n]))])
    counted = sorted({len(row) for row in rows})
    tables.show('Recall, and the plain computation with numpy', [
        'set', *(part for n in RECALLS for part in (f'R@{n}', 'plain'))],
        [row + [float('nan')] * (counted[-1] - len(row)) for row in rows])
    equal = all(row[1::2] == row[2::2] for row in rows)
    lines = [tables.verdict(f'recall equal to the plain computation on {len(rows)} sets',
                            reached=equal)]
    share = _throughput(*sets[largest], encoder)
    lines.append(tables.verdict(
        f'{largest}: end to end at {share:.0%} of the speed of the encoder alone (target '
        f'{SHARE_TARGET:.0%})',
        reached=share >= SHARE_TARGET))
    megabytes, seconds = _report(results[largest])
    lines.append(tables.verdict(
        f'report of {QUERIES} queries: {megabytes:.1f} MB (target {MEGABYTES:g} MB), opens in '
        f'{seconds:.2f} s (target {SECONDS:g} s)',
        reached=megabytes < MEGABYTES and seconds < SECONDS))
    return {'recall': {row[0]: row[1:] for row in rows}, 'throughput_share': share,
            'report_mb': megabytes, 'report_s': seconds, 'verdicts': lines}


def _plain(database: Path, queries: Path, truth: Path, encoder: Encoder) -> dict[str, float]:
    """Return Recall@N from a matrix product and a sort."""
    references, files = images.list_folder(database), images.list_folder(queries)
    right = read_ground_truth(truth, files, references)
    places, asked = (descriptors(encoder, map(images.read, paths))
                     for paths in (references, files))
    mean = places.mean(axis=0)
    order = np.argsort(-centre(asked, mean) @ centre(places, mean).T, axis=1, kind='stable')
    mapped = [q for q in range(len(files)) if right[q]]
    return {str(n): float(np.mean([bool(set(order[q, :n]) & set(right[q])) for q in mapped]))
            for n in RECALLS if n <= len(references)}


def _throughput(database: Path, queries: Path, truth: Path, encoder: Encoder) -> float:
    """Return the speed of a whole evaluation as a share of that of the encoder alone."""
    frames = [images.read(file) for folder in (database, queries)
              for file in images.list_folder(folder)]

    def encode() -> None:
        encode_all(encoder, encoder.encode_batch,
                   (frames[i:i + BATCH] for i in range(0, len(frames), BATCH)))
    taken = tables.in_turns({
        'the encoder alone': encode,
        'vpr evaluate': lambda: summary(evaluate_set(database, queries, truth, encoder,
                                                     cache=False))}, ROUNDS)
    medians = {name: float(np.median(seconds)) for name, seconds in taken.items()}
    tables.show(f'{len(frames)} images', ('call', 's', 'images/s'), [
        (name, seconds, len(frames) / seconds) for name, seconds in medians.items()])
    return medians['the encoder alone'] / medians['vpr evaluate']


def _report(one: Evaluation) -> tuple[float, float]:
    """Return the megabytes of a report of QUERIES queries, and the seconds to open it."""
    from playwright.sync_api import sync_playwright
    large = one.take(np.resize(np.arange(len(one)), QUERIES))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, 'report.html')
        write_report(large, path)
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'),
                                             args=['--no-sandbox'])
        page = browser.new_page()
        begin = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector('html[data-ready=yes]')
        seconds = time.perf_counter() - begin
        browser.close()
        return path.stat().st_size / 1e6, seconds


def main() -> int:
    """Run from the command line."""
    parser = tables.parser(__doc__)
    add_data_option(parser)
    options = parser.parse_args()
    return answer(options, lambda: evaluation(options.data, options.model))


if __name__ == '__main__':
    sys.exit(main())
