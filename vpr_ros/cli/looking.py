"""The command that shows what a network sees."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from vpr_ros.cli.options import add_localizer_options
from vpr_ros.cli.options import command
from vpr_ros.cli.options import load_encoder
from vpr_ros.cli.options import number
from vpr_ros.core import defaults

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from vpr_ros.cli.options import Commands
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.offline.embedding import DescribedDrive

    Shown = list[tuple[str, str, Path]]

FIGURES = 'figures.json'


def add_visualize(commands: Commands) -> None:
    """Add `vpr visualize`."""
    parser = command(commands, 'visualize', _run_visualize,
                     'show what a network makes of drives: t-SNE, UMAP, visual words, filters')
    parser.add_argument('sources', nargs='+', metavar='SOURCE',
                        help='a rosbag2, a folder of pictures with poses, or a map; several '
                             'drives over the same ground, with their poses in one frame, are '
                             'compared')
    add_localizer_options(parser)
    parser.add_argument('--output', '-o', required=True, metavar='DIR',
                        help='folder for PNG files, index.html and figures.json')
    parser.add_argument('--overwrite', action='store_true', help='replace a folder of this kind')
    parser.add_argument('--condition', action='append', default=[], metavar='NAME',
                        help="a bag's or folder's season or light, in their order; its name if "
                             'left out. Maps know theirs')
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
    from vpr_ros.core.files import check_output
    from vpr_ros.core.files import whole_directory
    from vpr_ros.offline.gallery import write_gallery
    check_output(options.output, FIGURES, overwrite=options.overwrite)  # before the long work
    encoder = load_encoder(options)
    drives = _described(options, encoder)
    with whole_directory(options.output, FIGURES, overwrite=options.overwrite) as part:
        figures, shown = _embedded(part, drives, options.radius, options.seed)
        more, words = _inside(part, drives, encoder)
        (part / FIGURES).write_text(json.dumps({**figures, **more}, indent=2) + '\n')
        write_gallery(part / 'index.html', f'What {encoder.path.name} makes of '
                      f'{", ".join(drive.label for drive in drives)}', [*shown, *words])
    print(f'{options.output}/index.html: {len(shown) + len(words)} pictures')


def _described(options: argparse.Namespace, encoder: Encoder) -> list[DescribedDrive]:
    from pathlib import Path

    from vpr_ros.io.sources import check_same_frames
    from vpr_ros.io.sources import open_source
    from vpr_ros.maps.manifest import MANIFEST
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.embedding import describe_drive
    from vpr_ros.offline.embedding import describe_map
    are_maps = [Path(path, MANIFEST).is_file() for path in options.sources]
    if options.condition and len(options.condition) != are_maps.count(False):
        raise ValueError(f'{len(options.condition)} conditions for {are_maps.count(False)} bags '
                         'and folders: give one --condition for each, or none')
    left, drives = iter(options.condition), []
    frames: set[tuple[str, str]] = set()
    for path, is_map in zip(options.sources, are_maps, strict=True):
        if is_map:
            place_map = PlaceMap.load(path, encoder)
            frames.add((place_map.manifest.frame_id, place_map.manifest.child_frame_id))
            check_same_frames(frames)
            drives += describe_map(place_map, options.most, options.pictures)
            continue
        with open_source(path, image_topic=options.image_topic,
                         pose_topic=options.pose_topic) as source:
            frames.add((source.frame_id, source.child_frame_id))
            check_same_frames(frames)
            drives.append(describe_drive(source, encoder, next(left, source.name), options.most,
                                         options.pictures))
    return drives


def _embedded(folder: Path, drives: list[DescribedDrive], radius: float, seed: int
              ) -> tuple[dict[str, object], Shown]:
    """Draw the descriptors; what cannot be drawn is told on the terminal."""
    from dataclasses import asdict

    from vpr_ros.core.errors import VprError
    from vpr_ros.offline.embedding import centred
    from vpr_ros.offline.embedding import draw_embedding
    from vpr_ros.offline.embedding import embed
    from vpr_ros.offline.embedding import raw_of
    from vpr_ros.offline.embedding import together
    from vpr_ros.offline.embedding import together_in_plane
    figures: dict[str, object] = {}
    shown: Shown = []
    line, raw = f'{len(drives[0].positions)} frames of {drives[0].label}', raw_of(drives)
    if len(drives) > 1:
        found = together(drives, radius)
        figures['together'] = asdict(found)
        line = (f'{found.centred:.0%} of the frames have a frame of the same place '
                f'({radius:g} m) as their nearest in another drive')
        before = '' if found.share is None else f'{found.share:.0%} before each drive is centred, '
        print(f'{line}; {before}{found.chance:.0%} by chance; {found.frames} frames')
    stages = {} if raw is None else {'as the model gives them': raw}
    stages['each drive centred'] = centred(drives)
    for method, name in (('tsne', 't-SNE'), ('umap', 'UMAP')):
        try:
            made = {done: embed(vectors, method, seed) for done, vectors in stages.items()}
        except VprError as error:
            print(f'no picture by {name}: {error}')
            continue
        layouts = {done: points for done, (points, _) in made.items()}
        trust = {done: trust for done, (_, trust) in made.items()}
        figures[method] = {'trustworthiness': trust}
        said = 'Trustworthiness ' + ', '.join(f'{one:.2f} {done}' for done, one in trust.items())
        heading = f'{name}: {line}'
        if len(drives) > 1:
            shares = {done: together_in_plane(drives, points, radius)
                      for done, points in layouts.items()}
            figures[method] = {'trustworthiness': trust, 'together': shares}
            heading += ';\nin this plane ' + ', '.join(
                f'{share:.0%} {done}' for done, share in shares.items())
        file = folder / f'{method}.png'
        draw_embedding(file, drives, layouts, radius, heading)
        shown.append((f'Descriptors by {name}', 'The localiser centres each drive on its mean. '
                      f'{said}: at 1, neighbours in the plane are neighbours in truth; distances '
                      'between clusters mean nothing.', file))
    return figures, shown


def _inside(folder: Path, drives: list[DescribedDrive], encoder: Encoder
            ) -> tuple[dict[str, object], Shown]:
    """Draw the visual words; a model without them is told on the terminal."""
    from vpr_ros.core.errors import ModelError
    try:
        from vpr_ros.offline import visual_words
    except ModuleNotFoundError as error:
        print(f"no pictures of the visual words: '{error.name}' is not installed: "
              'pip install vpr_ros[viz]')
        return {}, []
    shown: Shown = []
    figures: dict[str, object] = {}
    weights = visual_words.first_filters(encoder)
    if weights is not None:
        shown.append(('Filters of the first layer', 'Edges and colours. Noise here means too '
                      'little training.', folder / 'filters.png'))
        visual_words.draw_filters(shown[0][2], weights)
    pictures = [picture for drive in drives for picture in drive.pictures.values()]
    labels = [f'{drive.label}, frame {frame}' for drive in drives for frame in drive.pictures]
    if not pictures:
        print('no pictures of the visual words: the maps keep no thumbnails')
        return figures, shown
    try:
        found = visual_words.look_inside(encoder, pictures)
    except ModelError as error:
        print(f'no pictures of the visual words: {error}')
        return figures, shown
    files = {name: folder / f'{name}.png' for name in ('words', 'assignment', 'energy')}
    visual_words.draw_words(files['words'], found, pictures)
    visual_words.draw_assignment(files['assignment'], found, pictures, labels,
                          _same_place([drive for drive in drives if drive.pictures]))
    visual_words.draw_energy(files['energy'], found)
    unused = found.unused.tolist()
    print(f'{found.assignment.shape[1]} visual words, {len(unused)} of them never the first of a '
          f'cell in {len(pictures)} pictures')
    captions = {
        'words': 'The nine patches, of different pictures, that each word has the most of. A good '
                 'word shows one kind of thing: windows, kerbs, tree tops.',
        'assignment': 'The same place in each drive: the same things should get the same words. A '
                      'word that keeps to one row of every picture knows the border, not a thing.',
        'energy': 'Blue boxes: half of the pictures; lines: nine tenths. Words far above the '
                  'others drown them; words in orange never come first and could be spared.'}
    headings = {'words': 'Visual words', 'assignment': 'Which word sees what',
                'energy': 'Residual energy of the words'}
    return ({'words': found.assignment.shape[1], 'unused_words': unused},
            [*((headings[name], captions[name], file) for name, file in files.items()), *shown])


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
