"""Commands about models: train, export, wrap, prepare an engine, sign."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_provider
from vpr_ros.cli.options import command
from vpr_ros.cli.options import MODEL_HELP
from vpr_ros.cli.options import number
from vpr_ros.cli.options import size

if TYPE_CHECKING:
    from vpr_ros.cli.options import Commands


def add_train(commands: Commands) -> None:
    """Add `vpr train`."""
    parser = command(commands, 'train', _run_train,
                     'train a network as described by an experiment file',
                     'docs/training.md explains the experiment file.')
    parser.add_argument('experiment', metavar='EXPERIMENT.yaml',
                        help='network, data and schedule of the training')
    parser.add_argument('--output', '-o', metavar='DIR',
                        help='folder for checkpoints and logs (default: runs/EXPERIMENT)')
    parser.add_argument('--set', action='append', default=[], dest='changes', metavar='NAME=VALUE',
                        help='override a value of the experiment, such as training.epochs=5; may '
                             'be repeated')
    parser.add_argument('--resume', action='store_true',
                        help='continue from the last checkpoint in the output folder')
    parser.add_argument('--accelerator', default='auto', metavar='NAME',
                        help='accelerator of Lightning: cpu, gpu, ...')
    parser.add_argument('--devices', default='auto', metavar='N',
                        help='devices of Lightning: how many, or which')
    parser.add_argument('--nodes', type=number(int, 1), default=1, metavar='N',
                        help='number of machines')
    parser.add_argument('--strategy', default='auto', metavar='NAME',
                        help='strategy of Lightning: ddp, ...')


def _run_train(options: argparse.Namespace) -> None:
    from pathlib import Path

    from vpr_ros.training.experiment import Experiment
    from vpr_ros.training.experiment import read_experiment
    experiment = read_experiment(options.experiment, options.changes)
    output = options.output or Path('runs', Path(options.experiment).stem)
    if not isinstance(experiment, Experiment):
        from vpr_ros.training.features import train_features
        print(train_features(experiment, output, resume=options.resume))
        return
    from vpr_ros.training.train import train
    print(train(experiment, output, resume=options.resume,
                trainer_options={'accelerator': options.accelerator, 'devices': options.devices,
                                 'num_nodes': options.nodes, 'strategy': options.strategy}))


def add_export(commands: Commands) -> None:
    """Add `vpr export`."""
    parser = command(commands, 'export', _run_export,
                     'export a checkpoint as an ONNX model for the robot, and compare the two')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of vpr train')
    parser.add_argument('--output', '-o', required=True, metavar='ONNX', help='model to write')
    parser.add_argument('--precision', default='fp32', choices=('fp32', 'fp16', 'int8'),
                        help='precision of the backbone; normalisations stay in fp32')
    parser.add_argument('--images', '--pictures', nargs='+', default=[], metavar='DIR',
                        help='folders of images, one for each drive, on which the models are '
                             'compared, int8 is calibrated and --dimension is fitted')
    _add_validation(parser)
    parser.add_argument('--dimension', type=number(int, 1), metavar='D',
                        help='reduce the descriptors to D dimensions by PCA-whitening (default: '
                             'do not reduce)')
    parser.add_argument('--size', metavar='WxH',
                        help="size of the input in pixels (default: the experiment's)")
    parser.add_argument('--dynamic-size', action='store_true', help='accept images of any size')
    parser.add_argument('--no-half-weights', dest='half_weights', action='store_false',
                        help='store weights as float32 instead of float16: no rounding, twice the '
                             'file size')
    parser.add_argument('--license', default='', metavar='NAME',
                        help='licence of the weights, for the metadata')


def _run_export(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import check_file
    check_file(options.output)  # before the long work
    from vpr_ros.training.feature_export import export_features
    from vpr_ros.training.feature_export import is_features
    if is_features(options.checkpoint):
        print(f'{options.output}: ' + export_features(options.checkpoint, options.output,
                                                      license_name=options.license))
        return
    from vpr_ros.training.checkpoint import load_network
    from vpr_ros.training.export import CALIBRATED_ON
    from vpr_ros.training.export import export
    from vpr_ros.training.export import ExportOptions
    from vpr_ros.training.export import metadata_of
    from vpr_ros.training.export import PROJECTED_FROM
    from vpr_ros.training.export import sample_images
    from vpr_ros.training.projection import fold_projection
    from vpr_ros.training.recall import ValidationSet
    network, experiment = load_network(options.checkpoint)
    described = experiment.network
    height, width = (size(options.size) if options.size else (described.height, described.width))
    validation = ValidationSet.read(options.validation) if options.validation else None
    if (options.dimension or options.precision == 'int8') and not options.images:
        raise ValueError('--dimension and --precision int8 need --images to fit to')
    if options.dimension:
        network = fold_projection(
            network, *sample_images(options.images, height, width, PROJECTED_FROM),
            options.dimension)
    images = None
    if options.images:
        images, _ = sample_images(options.images, height, width, CALIBRATED_ON)
    report = export(network, options.output,
                    ExportOptions(height, width, options.precision, options.dynamic_size,
                                  options.half_weights),
                    metadata=metadata_of(experiment, options.checkpoint, options.license),
                    images=images, validation=validation)
    print(f'{options.output}: {report}')


def _add_validation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--validation', metavar='DIR',
                        help='folder with database/, queries/ and ground_truth.csv: nothing is '
                             'written if Recall@1 on it falls by more than 0.5 points for certain '
                             '(95 %%)')


def add_wrap_model(commands: Commands) -> None:
    """Add `vpr wrap-model`."""
    parser = command(commands, 'wrap-model', _run_wrap_model,
                     'turn a published place-recognition network (ONNX) into a model for the '
                     'robot',
                     'Normalisation becomes part of the model. The defaults are those of networks '
                     'trained on ImageNet.')
    parser.add_argument('source', metavar='NETWORK.onnx',
                        help='network that takes float or uint8 images')
    parser.add_argument('--output', '-o', required=True, metavar='ONNX', help='model to write')
    parser.add_argument('--mean', nargs=3, type=float, default=(0.485, 0.456, 0.406),
                        metavar='X',
                        help='mean per channel to subtract, after the division by --scale '
                             '(default: 0.485 0.456 0.406)')
    parser.add_argument('--std', nargs=3, type=float, default=(0.229, 0.224, 0.225), metavar='X',
                        help='standard deviation per channel to divide by (default: 0.229 0.224 '
                             '0.225)')
    parser.add_argument('--scale', type=number(float, 1e-6), default=255.0, metavar='X',
                        help='number to divide the pixels, 0 to 255, by; 1 for none')
    parser.add_argument('--size', metavar='WxH',
                        help='size of the input in pixels; needed if the network takes any size')
    parser.add_argument('--layout', default='nchw', choices=('nchw', 'nhwc'),
                        help="axis order of the network's input")
    parser.add_argument('--colour', default='rgb', choices=('rgb', 'bgr'),
                        help="channel order of the network's input")
    parser.add_argument('--output-name', default='', metavar='NAME',
                        help='output with the descriptor; needed if there are several')
    parser.add_argument('--precision', default='fp32', choices=('fp32', 'fp16', 'int8'),
                        help='precision of matrix products and convolutions; int8: of '
                             'convolutions only')
    parser.add_argument('--half-weights', action='store_true',
                        help='store weights as float16: half the file size, and a rounding')
    parser.add_argument('--images', nargs='+', default=[], metavar='DIR',
                        help='folders of images, one for each drive, on which the models are '
                             'compared and int8 is calibrated')
    _add_validation(parser)
    parser.add_argument('--name', default='', help='name of the network, for the metadata')
    parser.add_argument('--license', default='', metavar='NAME',
                        help='licence of the weights, for the metadata')


def _run_wrap_model(options: argparse.Namespace) -> None:
    from vpr_ros.core.files import check_file
    check_file(options.output)
    from vpr_ros.training.input_format import InputFormat
    from vpr_ros.training.wrap import Reduction
    from vpr_ros.training.wrap import wrap_model
    expected = InputFormat(options.mean, options.std,
                           size(options.size) if options.size else None, options.layout,
                           options.colour, options.scale)
    report = wrap_model(options.source, options.output, expected, output_name=options.output_name,
                        name=options.name, license_name=options.license,
                        reduction=Reduction(options.precision, options.half_weights,
                                            tuple(options.images), options.validation))
    print(f'{options.output}: {report}')


def add_prepare_engine(commands: Commands) -> None:
    """Add `vpr prepare-engine`."""
    parser = command(commands, 'prepare-engine', _run_prepare_engine,
                     'build the inference engine of a model before the node needs it',
                     'A first TensorRT build takes minutes; docs/engines.md has more.')
    parser.add_argument('model', nargs='?', metavar='ONNX', help=MODEL_HELP)
    add_provider(parser)
    parser.add_argument('--threads', type=number(int, 0, 256), default=0, metavar='N',
                        help="CPU threads, as the node's parameter threads; 0 for all cores")
    parser.add_argument('--engine-cache', metavar='DIR',
                        help="folder for engines, as the node's parameter engine_cache (default: "
                             '~/.cache/vpr_ros/engines)')


def _run_prepare_engine(options: argparse.Namespace) -> None:
    from vpr_ros.encoding.encoder import Encoder
    encoder = Encoder(options.model, options.provider, options.threads,
                      engine_cache=options.engine_cache)
    engine = encoder.engine
    print(f'{encoder.path}: {engine.provider}, {engine.precision}' + (
        ', no engine to build' if engine.cosine is None else
        f', cosine {engine.cosine:.5f} to the CPU, in {engine.folder or "memory only"}'))


def add_sign(commands: Commands) -> None:
    """Add `vpr sign`."""
    parser = command(commands, 'sign', _run_sign,
                     'sign a map or a model, for robots that load only what their owner signed',
                     'Writes map.yaml.sig into the map, or MODEL.sig. The node and vpr replay '
                     'check signatures with trusted_keys; docs/security.md has more.')
    parser.set_defaults(refuse=parser.error)
    parser.add_argument('paths', nargs='*', metavar='MAP|MODEL',
                        help='map directory or ONNX model')
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--key', metavar='FILE', help='private key to sign with')
    which.add_argument('--new-key', metavar='FILE',
                       help='write a new private key to this file, and its public key to FILE.pub')


def _run_sign(options: argparse.Namespace) -> None:
    from vpr_ros.core.signatures import new_key
    from vpr_ros.maps.trust import sign
    if bool(options.paths) == bool(options.new_key):
        options.refuse('name maps or models to sign with --key, and none with --new-key')
    if options.new_key:
        print(f'{options.new_key}: keep it secret; for robots, as trusted_keys: '
              f'{new_key(options.new_key)}')
    for path in options.paths:
        print(f'{path}: signed with {sign(path, options.key)[:12]}')
