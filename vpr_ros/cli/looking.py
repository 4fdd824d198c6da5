"""The command that shows what a network sees."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from vpr_ros import defaults
from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from vpr_ros.cli.options import Commands
    from vpr_ros.encoder import Encoder
    from vpr_ros.offline.embedding import DescribedDrive

    Shown = list[tuple[str, str, Path]]

FIGURES = 'figures.json'


def add_visualize(commands: Commands) -> None:
    """Add `vpr visualize`."""
    parser = command(commands, 'visualize', _run_visualize,
                     'show what a network makes of drives: t-SNE, UMAP, visual words, filters')
    parser.add_argument('sources', nargs='+', metavar='SOURCE',
                        help='a rosbag2, or a folder of pictures with poses; several drives over '
                             'the same ground, with their poses in one frame, are compared')
    add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='DIR',
                        help='folder for PNG files, index.html and figures.json')
    parser.add_argument('--overwrite', action='store_true', help='replace a folder of this kind')
    parser.add_argument('--condition', action='append', default=[], metavar='NAME',
                        help="a source's season or light, in the order of the sources; its name "
                             'if left out')
    parser.add_argument('--image-topic', help='the first image topic if left out')
    parser.add_argument('--pose-topic', help='the best pose topic if left out')
    parser.add_argument('--most', type=number(int, 4), default=400, metavar='N',
                        help='frames of each drive, evenly')
    parser.add_argument('--pictures', type=number(int, 1), default=60, metavar='N',
                        help='of these, pictures of each drive that the words are looked up in')
    parser.add_argument('--radius', type=number(float, 0.001), default=defaults.CORRECT_RADIUS,
                        metavar='M', help='metres within which two frames show the same place')
    parser.add_argument('--seed', type=number(int, 0), default=0, help='of t-SNE and UMAP')


def _run_visualize(options: argparse.Namespace) -> None:
    from vpr_ros.files import check_output
    from vpr_ros.files import whole_directory
    from vpr_ros.offline.embedding import describe_drive
    from vpr_ros.offline.gallery import write_gallery
    from vpr_ros.sources import open_source
    if options.condition and len(options.condition) != len(options.sources):
        raise ValueError(f'{len(options.condition)} conditions for {len(options.sources)} '
                         'sources: give one --condition for each, or none')
    check_output(options.output, FIGURES, overwrite=options.overwrite)  # before the long work
    encoder, drives = load_encoder(options), []
    for number_, path in enumerate(options.sources):
        with open_source(path, image_topic=options.image_topic,
                         pose_topic=options.pose_topic) as source:
            label = options.condition[number_] if options.condition else source.name
            drives.append(describe_drive(source, encoder, label, options.most, options.pictures))
    with whole_directory(options.output, FIGURES, overwrite=options.overwrite) as part:
        figures, shown = _embedded(part, drives, options.radius, options.seed)
        more, words = _inside(part, drives, encoder)
        (part / FIGURES).write_text(json.dumps({**figures, **more}, indent=2) + '\n')
        write_gallery(part / 'index.html', f'What {encoder.path.name} makes of '
                      f'{", ".join(drive.label for drive in drives)}', [*shown, *words])
    print(f'{options.output}/index.html: {len(shown) + len(words)} pictures')


def _embedded(folder: Path, drives: list[DescribedDrive], radius: float, seed: int
              ) -> tuple[dict[str, object], Shown]:
    """Draw the descriptors; what cannot be drawn is told on the terminal."""
    from dataclasses import asdict

    from vpr_ros.errors import VprError
    from vpr_ros.offline.embedding import centred
    from vpr_ros.offline.embedding import draw_embedding
    from vpr_ros.offline.embedding import embed
    from vpr_ros.offline.embedding import together
    figures: dict[str, object] = {}
    shown: Shown = []
    line = f'{len(drives[0].positions)} frames of {drives[0].label}'
    if len(drives) > 1:
        found = together(drives, radius)
        figures['together'] = asdict(found)
        line = (f'{found.centred:.0%} of the frames have a frame of the same place '
                f'({radius:g} m) as their nearest in another drive')
        print(f'{line}; {found.share:.0%} before each drive is centred, {found.chance:.0%} '
              f'by chance; {found.frames} frames')
    for method, name in (('tsne', 't-SNE'), ('umap', 'UMAP')):
        try:
            points, trust = embed(centred(drives), method, seed)
        except VprError as error:
            print(f'no picture by {name}: {error}')
            continue
        figures[f'{method}_trustworthiness'] = trust
        file = folder / f'{method}.png'
        draw_embedding(file, drives, points, f'{name}: {line}')
        shown.append((f'Descriptors by {name}', 'Each drive is centred on its mean, as the '
                      f'localiser does. Trustworthiness {trust:.2f}: at 1, neighbours in the '
                      'plane are neighbours in truth; distances between clusters mean nothing.',
                      file))
    return figures, shown


def _inside(folder: Path, drives: list[DescribedDrive], encoder: Encoder
            ) -> tuple[dict[str, object], Shown]:
    """Draw the visual words; a model without them is told on the terminal."""
    from vpr_ros.errors import ModelError
    try:
        from vpr_ros.training import words
    except ModuleNotFoundError as error:
        print(f"no pictures of the visual words: '{error.name}' is not installed: "
              'pip install vpr_ros[viz]')
        return {}, []
    pictures = [picture for drive in drives for picture in drive.pictures.values()]
    labels = [f'{drive.label}, frame {frame}' for drive in drives for frame in drive.pictures]
    try:
        found = words.look_inside(encoder, pictures)
    except ModelError as error:
        print(f'no pictures of the visual words: {error}')
        return {}, []
    files = {name: folder / f'{name}.png' for name in ('words', 'assignment', 'energy',
                                                       'filters')}
    words.draw_words(files['words'], found, pictures)
    words.draw_assignment(files['assignment'], found, pictures, labels, _same_place(drives))
    words.draw_energy(files['energy'], found)
    words.draw_filters(files['filters'], found)
    unused = found.unused.tolist()
    print(f'{found.assignment.shape[1]} visual words, {len(unused)} of them never the first of a '
          f'cell in {len(pictures)} pictures')
    captions = {
        'words': 'The nine patches, of different pictures, that each word has the most of. A good '
                 'word shows one kind of thing: windows, kerbs, tree tops.',
        'assignment': 'The same place in each drive: the same things should get the same words.',
        'energy': 'Blue boxes: half of the pictures; lines: nine tenths. Words far above the '
                  'others drown them; words in orange never come first and could be spared.',
        'filters': 'The first layer: edges and colours. Noise here means too little training.'}
    headings = {'words': 'Visual words', 'assignment': 'Which word sees what',
                'energy': 'Residual energy of the words', 'filters': 'Filters of the first layer'}
    return ({'words': found.assignment.shape[1], 'unused_words': unused},
            [(headings[name], captions[name], file) for name, file in files.items()])


def _same_place(drives: list[DescribedDrive]) -> list[int]:
    """Return one picture of each drive, by its number among all, that show the same place best."""
    import numpy as np
    where: list[NDArray[np.float64]] = [drive.positions[list(drive.pictures)] for drive in drives]
    off = np.array([np.max([np.linalg.norm(others - one, axis=1).min() for others in where])
                    for one in where[0]])
    one = where[0][int(off.argmin())]
    begin = np.cumsum([0, *(len(positions) for positions in where)])
    return [int(start + np.linalg.norm(positions - one, axis=1).argmin())
            for start, positions in zip(begin, where, strict=False)]
