"""The command that shows what a network makes of drives."""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_image_topic
from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import add_pose_options
from vpr_ros.cli.options import add_pose_topic
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number
from vpr_ros.cli.options import pose_options
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from vpr_ros.cli.options import Commands


def add_visualize(commands: Commands) -> None:
    """Add `vpr visualize`."""
    parser = command(commands, 'visualize', _run_visualize,
                     'draw what a network makes of drives: t-SNE and UMAP of its descriptors, '
                     'visual words, filters')
    parser.add_argument('sources', nargs='+', metavar='SOURCE',
                        help='a bag, a folder of images with poses, or a map; several drives over '
                             'the same ground, with poses in one frame, are compared')
    add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='DIR',
                        help='folder for index.html, PNG files and figures.json')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace an earlier output of this command')
    parser.add_argument('--condition', action='append', default=[], metavar='NAME',
                        dest='conditions',
                        help='season or light of a bag or folder, one option for each, in their '
                             'order (default: their names; maps know their conditions)')
    add_image_topic(parser)
    add_pose_topic(parser)
    add_pose_options(parser)
    parser.add_argument('--most', type=number(int, 4), default=400, metavar='N',
                        dest='max_frames', help='frames to take of each drive, evenly spaced')
    parser.add_argument('--images', '--pictures', type=number(int, 1), default=60, metavar='N',
                        dest='max_images',
                        help='images of each drive, of those frames, to show to the visual words')
    parser.add_argument('--radius', type=number(float, 0.001), default=defaults.CORRECT_RADIUS,
                        metavar='M', help='frames within this distance (m) show the same place')
    parser.add_argument('--seed', type=number(int, 0), default=0, metavar='N',
                        help='random seed of t-SNE and UMAP')


def _run_visualize(options: argparse.Namespace) -> None:
    import_module('matplotlib')  # before the long work
    from vpr_ros.offline.visualize import visualize
    from vpr_ros.offline.visualize import VisualizeOptions
    page = visualize(
        options.sources, load_encoder(options), options.output,
        VisualizeOptions(conditions=options.conditions, image_topic=options.image_topic,
                         pose_topic=options.pose_topic, poses=pose_options(options),
                         max_frames=options.max_frames,
                         max_images=options.max_images, radius=options.radius,
                         seed=options.seed),
        overwrite=options.overwrite)
    for note in page.notes:
        print(note)
    print(f'{options.output}/index.html: {page.panels} figures')
