"""Experiments: from YAML, with changes from the command line, and what is no experiment."""

from __future__ import annotations

from pathlib import Path

import pytest
from vpr_ros.core.errors import TrainingError

omegaconf = pytest.importorskip('omegaconf')

from vpr_ros.training.experiment import FeatureExperiment  # noqa: E402
from vpr_ros.training.experiment import make_experiment  # noqa: E402
from vpr_ros.training.experiment import read_experiment  # noqa: E402

EXPERIMENTS = sorted((Path(__file__).parents[2] / 'experiments').glob('*.yaml'))


def test_values_of_the_file_and_then_of_the_command_line_count(tmp_path: Path):
    path = tmp_path / 'one.yaml'
    path.write_text('network: {clusters: 16}\ndata: {s: {kind: street, towns: [100]}}\n')
    experiment = read_experiment(path, ['network.height=96', 'data.s.towns=[101, 102]',
                                        'data.t.kind=single', 'loss.options.margin=0.2'])
    assert (experiment.network.clusters, experiment.network.height) == (16, 96)
    assert experiment.data == {'s': {'kind': 'street', 'towns': [101, 102]},
                               't': {'kind': 'single'}}
    assert experiment.loss.options == {'margin': 0.2}


def test_an_experiment_survives_being_written_as_plain_values():
    experiment = make_experiment({'teacher': {'network': 'a.ckpt', 'match': {'local': 2.0}},
                                  'data': {'s': {'kind': 'street', 'towns': [100]}}})
    assert make_experiment(experiment.as_dict()) == experiment


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_the_experiments_of_the_project_are_read(path: Path):
    experiment = read_experiment(path)
    assert experiment.views if isinstance(experiment, FeatureExperiment) else experiment.data


@pytest.mark.parametrize('text, message', [
    ('network: {cluster: 16}', "'cluster' not in 'Network'"),
    ('network: {clusters: many}', r"'many'.* could not be converted to Integer"),
    ('nets: {}', "'nets' not in 'Experiment'"),
    ('[1, 2]', 'experiment'),
    ('a: [', 'not YAML'),
])
def test_what_an_experiment_does_not_have_is_named(tmp_path: Path, text, message):
    path = tmp_path / 'experiment.yaml'
    path.write_text(text)
    with pytest.raises(TrainingError, match=message) as raised:
        read_experiment(path)
    assert str(path) in str(raised.value)
    assert '\n' not in str(raised.value)


def test_a_change_without_a_value_is_refused():
    with pytest.raises(TrainingError, match=r'part\.name=value'):
        make_experiment({}, ['training.epochs'])


def test_a_file_that_is_missing_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match='no such experiment'):
        read_experiment(tmp_path / 'none.yaml')
