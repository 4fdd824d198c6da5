"""Every experiment of the project trains in two processes, here tiny ones on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip('lightning')

EXPERIMENTS = [path for path in sorted((Path(__file__).parents[2] / 'experiments').glob('*.yaml'))
               if path.stem != 'local_features']    # which is of another kind, for one process
SCRIPT = """
import sys
from pathlib import Path
from vpr_ros.training.experiment import make_experiment, read_experiment
from vpr_ros.training.train import train

folder = Path(sys.argv[1])
for path in sys.argv[2:]:
    values = read_experiment(path).as_dict()
    values['data'] = {'scenes': {'kind': 'places', 'folder': str(folder / 'places')}}
    values['validation'] = {}
    values['network'] |= {'weights': 'random', 'clusters': 2, 'height': 32, 'width': 32,
                          'dimension': min(values['network']['dimension'], 4)}
    values['batch'] |= {'areas': 1, 'places': 2, 'pictures': 2}
    values['augmentation'] = 'none'
    values['training'] |= {'epochs': 1, 'batches': 2, 'workers': 0, 'precision': '32-true'}
    if values['teacher']['network']:
        # Bare weights or a checkpoint: their outputs, and what of the student learns, differ.
        bare = values['teacher']['network'] == 'imagenet'
        values['teacher']['network'] = str(folder / ('weights.pt' if bare else 'last.ckpt'))
    described = make_experiment(values)
    train(described, folder / Path(path).stem, trainer_options={
        'accelerator': 'cpu', 'devices': 2, 'strategy': 'ddp', 'enable_progress_bar': False})
"""


def test_every_experiment_trains_in_two_processes(tmp_path: Path):
    torch = pytest.importorskip('torch')
    from vpr_ros.training.experiment import Experiment
    from vpr_ros.training.experiment import Network
    from vpr_ros.training.model import PlaceNetwork
    random = np.random.default_rng(0)
    for place in range(8):
        (tmp_path / 'places' / str(place)).mkdir(parents=True)
        for shot in range(2):
            cv2.imwrite(str(tmp_path / 'places' / str(place) / f'{shot}.png'),
                        random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    network = PlaceNetwork('resnet18', '', 'netvlad', 2, 4)
    torch.save(network.backbone.state_dict(), tmp_path / 'weights.pt')
    described = Experiment(network=Network(clusters=2, dimension=4, weights='random'))
    torch.save({'experiment': described.as_dict(), 'state_dict': {
        f'network.{name}': value for name, value in network.state_dict().items()}},
        tmp_path / 'last.ckpt')
    (tmp_path / 'ddp.py').write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        processes.append(subprocess.Popen(
            [sys.executable, tmp_path / 'ddp.py', tmp_path, *EXPERIMENTS],
            env={**os.environ, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
                 'LOCAL_RANK': str(rank), 'NODE_RANK': '0', 'WORLD_SIZE': '2',
                 'OMP_NUM_THREADS': '1', 'PYTHONPATH': os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], '\n'.join(outputs)[-3000:]
    for path in EXPERIMENTS:
        assert (tmp_path / path.stem / 'last.ckpt').is_file()
        assert (tmp_path / path.stem / 'logs' / 'csv' / 'metrics.csv').is_file()
