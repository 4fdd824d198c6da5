"""What is accepted as the file of a network: an interval decides, not a query or two."""

from __future__ import annotations

import numpy as np
import pytest
from vpr_ros.core.errors import ModelError
from vpr_ros.core.metrics import paired_difference
from vpr_ros.training.parity import accept
from vpr_ros.training.parity import ExportReport


def report(lost: int, gained: int = 0, queries: int = 125, *, precision: str = 'int8',
           cosine: float = 0.995) -> ExportReport:
    """Return that of a network right in 8 of 10 queries, whose file is right in others."""
    before = np.arange(queries) < 0.8 * queries
    after = before.copy()
    after[:lost] = False
    after[queries - gained:] = True
    return ExportReport(precision, 10 ** 6, cosine, cosine, float(before.mean()),
                        float(after.mean()), paired_difference(before, after))


@pytest.mark.parametrize(('lost', 'gained'), [(0, 0), (1, 0), (2, 0), (8, 8)])
@pytest.mark.parametrize('precision', ['fp16', 'int8'])
def test_a_few_queries_decide_nothing(lost, gained, precision):
    accept(report(lost, gained, precision=precision, cosine=0.9995), 'model.onnx')


@pytest.mark.parametrize(('lost', 'queries'), [(9, 125), (25, 125), (25, 1000), (3000, 100_000)])
def test_a_loss_that_is_certain_is_refused(lost, queries):
    with pytest.raises(ModelError, match=r'takes Recall@1 from 0.8000 to .*, certainly by'):
        accept(report(lost, queries=queries), 'model.onnx')


def test_a_loss_within_the_limit_is_accepted_however_certain():
    accept(report(400, queries=100_000), 'model.onnx')


@pytest.mark.parametrize('cosine', [0.675, 0.979, float('nan')])
def test_descriptors_far_from_the_network_are_refused_whatever_the_recall(cosine):
    with pytest.raises(ModelError, match='mean cosine of its descriptors'):
        accept(report(0, cosine=cosine), 'model.onnx')


def test_a_report_says_what_it_cannot_know():
    assert 'more queries would say whether it is less than 5' in str(report(0, queries=20))
    assert 'more queries' not in str(report(0, queries=1000))
    noise = ExportReport('fp32', 10 ** 6, 1.0, 1.0, on_noise=True)
    assert 'on noise, which says little of real images: give some with --images' in str(noise)


def test_the_interval_of_a_paired_difference_is_newcombes():
    # His example of 36 pairs that are right twice, and 12 and 2 that are right once.
    before = np.repeat([True, True, False], [36, 12, 2])
    after = np.repeat([True, False, True], [36, 12, 2])
    low, high = paired_difference(before, after)
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=1e-4)
    assert paired_difference(after, before) == pytest.approx((-high, -low))
    assert paired_difference(before, before)[1] < high - low
