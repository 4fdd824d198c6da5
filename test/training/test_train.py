"""Real but tiny trainings: what learns, what must not, and what happens when it goes wrong."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from vpr_ros.core.errors import ModelError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import TrainingError

torch = pytest.importorskip('torch')
lightning = pytest.importorskip('lightning')

from vpr_ros.training.checkpoint import load_network  # noqa: E402
from vpr_ros.training.data import PlaceData  # noqa: E402
from vpr_ros.training.data import read_image_table  # noqa: E402
from vpr_ros.training.experiment import Experiment  # noqa: E402
from vpr_ros.training.experiment import make_experiment  # noqa: E402
from vpr_ros.training.train import initialise_network  # noqa: E402
from vpr_ros.training.train import PlaceTraining  # noqa: E402
from vpr_ros.training.train import train  # noqa: E402
from vpr_ros.training.train import WholeCheckpoints  # noqa: E402

QUIET = {'enable_progress_bar': False, 'accelerator': 'cpu'}
logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 8 places with 4 images each: a pattern of its own, and noise."""
    folder = tmp_path_factory.mktemp('places')
    random = np.random.default_rng(0)
    for place in range(8):
        pattern = cv2.resize(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), (48, 36))
        (folder / f'place{place}').mkdir()
        for shot in range(4):
            noisy = pattern * random.uniform(0.7, 1.0) + random.normal(0, 12, pattern.shape)
            cv2.imwrite(str(folder / f'place{place}' / f'{shot}.png'),
                        noisy.clip(0, 255).astype(np.uint8))
    return folder


def experiment(places: Path, **changes: Any) -> Experiment:
    """Return a training of a second or two; `changes` are 'part__name' values."""
    return make_experiment(
        {'network': {'clusters': 4, 'dimension': 8, 'height': 32, 'width': 40,
                     'weights': 'random'},
         'data': {'places': {'kind': 'places', 'folder': str(places)}},
         'batch': {'areas': 2, 'places': 2, 'pictures': 2}, 'augmentation': 'mild',
         'training': {'epochs': 2, 'workers': 0, 'precision': '32-true',
                      'learning_rate': 1e-3}},
        [f'{name.replace("__", ".")}={value}' for name, value in changes.items()])


def metrics(output: Path) -> list[dict[str, str]]:
    with (output / 'logs' / 'csv' / 'metrics.csv').open() as file:
        return list(csv.DictReader(file))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_network(path)[0].state_dict()


def test_all_layers_learn_and_frozen_batch_norm_does_not(places: Path, tmp_path: Path):
    described = experiment(places, loss__kind='multi-similarity')
    data = PlaceData.read(described)
    module = PlaceTraining(described, data)
    initialise_network(module.network, described, data.table)
    before = {name: value.clone() for name, value in module.network.state_dict().items()}
    trainer = lightning.Trainer(max_epochs=1, limit_train_batches=2, logger=False,
                                enable_checkpointing=False, use_distributed_sampler=False,
                                **QUIET)
    trainer.fit(module, datamodule=data)
    norms = {name for name, part in module.network.named_modules()
             if isinstance(part, torch.nn.BatchNorm2d)}
    assert norms
    for name, value in module.network.state_dict().items():
        frozen = name.rpartition('.')[0] in norms or name.startswith('normalise')
        assert torch.equal(value, before[name]) == frozen, name


def test_batch_norm_learns_where_it_is_asked_to(places: Path, tmp_path: Path):
    seen = []

    class Watch(lightning.Callback):

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            seen.append(module.network.backbone.bn1.running_mean.clone())

    described = experiment(places, training__freeze_batch_norm='false', training__epochs=1)
    train(described, tmp_path / 'run', trainer_options={**QUIET, 'callbacks': [Watch()]})
    assert not torch.equal(seen[0], seen[1])


def test_a_training_leaves_logs_and_a_checkpoint_that_carries_its_experiment(
        places: Path, tmp_path: Path):
    described = experiment(places, loss__kind='multi-similarity')
    best = train(described, tmp_path / 'run', trainer_options=QUIET)
    network, carried = load_network(best)
    assert carried == described
    assert network(torch.zeros(1, 32, 40, 3, dtype=torch.uint8)).shape == (1, 8)
    assert len([row for row in metrics(tmp_path / 'run') if row['loss']]) == 2
    assert list((tmp_path / 'run' / 'logs' / 'tensorboard').glob('events*'))
    assert not list((tmp_path / 'run').glob('.*.part-*'))


def test_a_checkpoint_that_cannot_be_written_whole_is_absent(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(content: object, path: Path) -> None:
        path.write_bytes(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(OSError, match='no space'):
        WholeCheckpoints().save_checkpoint({}, tmp_path / 'best.ckpt')
    assert not list(tmp_path.iterdir())


def test_an_experiment_that_refers_to_the_environment_is_refused(tmp_path: Path):
    torch.save({'experiment': {'augmentation': '${oc.env:HOME}'}, 'state_dict': {}},
               tmp_path / 'a.ckpt')
    with pytest.raises(ModelError, match='refers to other values'):
        load_network(tmp_path / 'a.ckpt')


def test_validation_logs_recall_and_the_best_epoch_is_kept(places: Path, tmp_path: Path):
    folder = tmp_path / 'drives'
    random = np.random.default_rng(1)
    for session in ('winter', 'spring'):
        (folder / session).mkdir(parents=True)
        lines = ['name,x,y,z,qx,qy,qz,qw']
        for i in range(6):
            image = np.full((36, 48, 3), 40 * i, np.uint8) + random.integers(
                0, 9, (36, 48, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / session / f'{i}.png'), image)
            lines.append(f'{i}.png,{10 * i},0,0,0,0,0,1')
        (folder / session / 'poses.csv').write_text('\n'.join(lines) + '\n')
    described = make_experiment({
        **experiment(places, loss__kind='multi-similarity').as_dict(),
        'validation': {'drive': {'kind': 'traverses',
                                 'sources': [str(folder / 'winter'), str(folder / 'spring')]}}})
    best = train(described, tmp_path / 'run', trainer_options=QUIET)
    recalls = [float(row['recall@1']) for row in metrics(tmp_path / 'run') if row['recall@1']]
    assert len(recalls) == 2
    assert best == tmp_path / 'run' / 'best.ckpt'
    assert torch.load(best, weights_only=True)['epoch'] == int(np.argmax(recalls))


def whole_and_interrupted(described: Any, folder: Path, interrupt: lightning.Callback
                          ) -> list[Any]:
    """Return the last weights of a training, and of one that failed and was resumed."""
    train(described, folder / 'whole', trainer_options=QUIET)
    with pytest.raises(RuntimeError, match='the power failed'):
        train(described, folder / 'half', trainer_options={**QUIET, 'callbacks': [interrupt]})
    train(described, folder / 'half', resume=True, trainer_options=QUIET)
    return [weights(folder / name / 'last.ckpt') for name in ('whole', 'half')]


def test_an_interrupted_training_resumes_to_the_same_result(places: Path, tmp_path: Path):
    described = experiment(places, training__epochs=3, loss__kind='contrastive')

    class Interrupt(lightning.Callback):

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 2:
                raise RuntimeError('the power failed')

    whole, half = whole_and_interrupted(described, tmp_path, Interrupt())
    for name, value in whole.items():
        torch.testing.assert_close(half[name], value, msg=name)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
        places: Path, tmp_path: Path):
    class Break(lightning.Callback):

        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 1:
                module.network.whitening.bias.data.fill_(float('nan'))

    with pytest.raises(TrainingError, match='the loss is nan in epoch 1'):
        train(experiment(places), tmp_path / 'run',
              trainer_options={**QUIET, 'callbacks': [Break()]})
    kept = weights(tmp_path / 'run' / 'last.ckpt')
    assert all(value.isfinite().all() for value in kept.values())


def test_a_student_comes_closer_to_its_teacher(places: Path, tmp_path: Path):
    teacher = train(experiment(places, training__epochs=1, network__dimension=6),
                    tmp_path / 'teacher', trainer_options=QUIET)
    described = experiment(
        places, loss__kind='none', teacher__network=str(teacher), training__epochs=8,
        teacher__match='{descriptor: 1, similarity: 1, local: 1, stages: 1}',
        augmentation='none', training__learning_rate=0.0003)
    train(described, tmp_path / 'student', trainer_options=QUIET)
    rows = [row for row in metrics(tmp_path / 'student') if row['loss']]
    for match in ('descriptor', 'local', 'stages', 'loss'):
        assert float(rows[-1][match]) < float(rows[0][match]), match


def test_an_onnx_model_teaches_its_descriptors(places: Path, tmp_path: Path, model_path: Path):
    described = experiment(places, loss__kind='none', teacher__network=str(model_path),
                           teacher__match='{descriptor: 1, similarity: 1}',
                           training__epochs=1)
    train(described, tmp_path / 'student', trainer_options=QUIET)
    assert [row['similarity'] for row in metrics(tmp_path / 'student') if row['similarity']]


def test_an_onnx_model_has_no_local_outputs_to_learn(places: Path, tmp_path: Path,
                                                     model_path: Path):
    described = experiment(places, teacher__network=str(model_path),
                           teacher__match='{local: 1}')
    with pytest.raises(TrainingError, match="has no outputs for 'local'"):
        train(described, tmp_path / 'student', trainer_options=QUIET)


@pytest.mark.parametrize('changes, message', [
    ({'loss__kind': 'quartet'}, 'use one of triplet'),
    ({'loss__options.alpha': 1}, 'loss.options'),
    ({'loss__kind': 'none'}, 'nothing to learn'),
    ({'data__places.kind': 'postcards'}, 'data.places: kind .postcards. is not known'),
    ({'data__places.colour': 'red'}, 'data.places: .*colour'),
    ({'augmentation': 'fierce'}, 'choose one of none, mild, strong'),
])
def test_an_experiment_that_cannot_be_run_is_refused(places: Path, tmp_path: Path, changes,
                                                     message):
    with pytest.raises((TrainingError, ValueError), match=message):
        train(experiment(places, **changes), tmp_path / 'run', trainer_options=QUIET)


def test_one_image_a_place_is_too_few_to_learn_from(tmp_path: Path):
    for place in 'abcd':
        (tmp_path / 'places' / place).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'places' / place / '1.png'), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match='too few images'):
        train(experiment(tmp_path / 'places', network__dimension=0, network__aggregation='avg'),
              tmp_path / 'run', trainer_options=QUIET)


def test_an_unreadable_image_is_named_and_left_out(places: Path, tmp_path: Path, caplog):
    folder = tmp_path / 'places' / 'broken'
    folder.mkdir(parents=True)
    (folder / '1.png').write_bytes(b'no image')
    (folder / '2.png').write_bytes((places / 'place0' / '0.png').read_bytes())
    table = read_image_table({'p': {'kind': 'places', 'folder': str(folder.parent)}}, 'data')
    assert len(table) == 1
    assert '1.png' in caplog.text


def test_an_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(SourceError, match=str(tmp_path)):
        read_image_table({'p': {'kind': 'single', 'folder': str(tmp_path)}}, 'data')


def test_part_takes_a_stretch_of_every_session(places: Path):
    whole = read_image_table({'p': {'kind': 'places', 'folder': str(places)}}, 'data')
    half = read_image_table({'p': {'kind': 'places', 'folder': str(places), 'part': [0.5, 1.0]}},
                            'data')
    assert half.names == whole.names[16:]


def test_a_training_is_not_written_over_another(places: Path, tmp_path: Path):
    (tmp_path / 'best.ckpt').write_bytes(b'')
    with pytest.raises(TrainingError, match='holds a training'):
        train(experiment(places), tmp_path)


def test_there_must_be_a_training_to_resume(places: Path, tmp_path: Path):
    with pytest.raises(TrainingError, match='no training to resume'):
        train(experiment(places), tmp_path, resume=True)


@pytest.mark.parametrize('content', [b'', b'PK\x03\x04 not a zip'])
def test_other_files_are_no_checkpoints(tmp_path: Path, content):
    (tmp_path / 'a.ckpt').write_bytes(content)
    with pytest.raises(ModelError, match='not a checkpoint'):
        load_network(tmp_path / 'a.ckpt')


def test_the_last_checkpoint_is_of_the_last_epoch_even_if_the_best_is_older(
        places: Path, tmp_path: Path):
    class Worse(lightning.Callback):

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.current_epoch:
                module.network.whitening.weight.data.normal_(std=10.0)

    train(experiment(places, loss__kind='multi-similarity', training__epochs=3),
          tmp_path / 'run', trainer_options={**QUIET, 'callbacks': [Worse()]})
    epochs = [torch.load(tmp_path / 'run' / name, weights_only=True)['epoch']
              for name in ('best.ckpt', 'last.ckpt')]
    assert epochs == [0, 2]


def test_a_training_with_workers_and_mining_resumes_to_the_same_weights_and_metrics(
        places: Path, tmp_path: Path):
    described = experiment(places, training__epochs=3, training__workers=1, batch__mining='full')

    class Interrupt(lightning.Callback):

        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError('the power failed')

    whole, half = whole_and_interrupted(described, tmp_path, Interrupt())
    for name, value in whole.items():
        assert torch.equal(half[name], value), name
    assert metrics(tmp_path / 'half') == metrics(tmp_path / 'whole')


def test_a_changed_network_is_not_resumed(places: Path, tmp_path: Path):
    described = experiment(places, training__epochs=1)
    train(described, tmp_path / 'run', trainer_options=QUIET)
    changed = experiment(places, training__epochs=2, network__clusters=5, training__freeze='bn1')
    with pytest.raises(TrainingError, match=r'network\.clusters is 5, and was 4; '
                                            r"training\.freeze is 'bn1', and was ''") as raised:
        train(changed, tmp_path / 'run', resume=True, trainer_options=QUIET)
    assert '\n' not in str(raised.value)


def test_a_whole_checkpoint_is_fine_tuned_and_frozen_layers_stay(places: Path, tmp_path: Path):
    train(experiment(places, training__epochs=1), tmp_path / 'first', trainer_options=QUIET)
    start = tmp_path / 'first' / 'last.ckpt'
    described = experiment(places, network__weights=str(start), network__take='all',
                           training__freeze='layer2', training__schedule='step',
                           training__step_epochs=1, training__warmup=0)
    train(described, tmp_path / 'second', trainer_options=QUIET)
    before, after = weights(start), weights(tmp_path / 'second' / 'last.ckpt')
    for name, value in before.items():
        frozen = any(part in name for part in ('conv1', 'bn', 'downsample.1', 'layer1', 'layer2'))
        if name.startswith('backbone.layer3') and not frozen:
            assert not torch.equal(after[name], value), name
        elif name.startswith('backbone.layer'):
            assert torch.equal(after[name], value) or 'layer3' in name, name
    rates = [float(row['lr-AdamW']) for row in metrics(tmp_path / 'second') if row['lr-AdamW']]
    assert rates == pytest.approx([1e-3, 5e-4])
    with pytest.raises(ModelError, match=r'another network .*4 clusters') as raised:
        train(experiment(places, network__weights=str(start), network__take='all',
                         network__clusters=8), tmp_path / 'third', trainer_options=QUIET)
    assert '\n' not in str(raised.value)


def test_partial_mining_trains(places: Path, tmp_path: Path):
    train(experiment(places, batch__mining='partial', batch__mined=4, training__epochs=1),
          tmp_path / 'run', trainer_options=QUIET)


@pytest.mark.parametrize(('changes', 'message'), [
    ({'training__freeze': 'layer9'}, 'training.freeze: the backbone has no layer .layer9.'),
])
def test_what_cannot_be_trained_is_one_line(places: Path, tmp_path: Path, monkeypatch, changes,
                                            message):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'empty'))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    with pytest.raises((TrainingError, ModelError), match=message) as raised:
        train(experiment(places, **changes), tmp_path / 'run', trainer_options=QUIET)
    assert '\n' not in str(raised.value)


def test_weights_that_are_not_cached_are_named_when_offline(places: Path, tmp_path: Path,
                                                            monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'empty'))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')
    with pytest.raises(ModelError, match=r'cannot be downloaded .*network\.weights') as raised:
        train(experiment(places, network__weights='imagenet'), tmp_path / 'run',
              trainer_options=QUIET)
    assert '\n' not in str(raised.value)
