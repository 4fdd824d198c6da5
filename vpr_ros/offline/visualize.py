"""
Show what a network makes of drives: t-SNE and UMAP of its descriptors, its visual words, filters.

The result is a folder of figures on one HTML page. How descriptors are laid out is in
embedding.py, how visual words are read and drawn in visual_words.py.
"""

from __future__ import annotations

from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import defaults
from vpr_ros.core.errors import how_to_install
from vpr_ros.core.errors import ModelError
from vpr_ros.core.errors import SourceError
from vpr_ros.core.errors import VprError
from vpr_ros.core.files import check_output
from vpr_ros.core.files import whole_directory
from vpr_ros.io.frames import check_same_frames
from vpr_ros.io.map_poses import CHECKED
from vpr_ros.io.map_poses import PoseOptions
from vpr_ros.io.sources import open_source
from vpr_ros.maps.manifest import MANIFEST
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.offline.embedding import centred_descriptors
from vpr_ros.offline.embedding import cross_drive_recall
from vpr_ros.offline.embedding import describe_drive
from vpr_ros.offline.embedding import describe_map
from vpr_ros.offline.embedding import draw_embedding
from vpr_ros.offline.embedding import embed
from vpr_ros.offline.embedding import layout_recall
from vpr_ros.offline.embedding import raw_descriptors
from vpr_ros.offline.gallery import write_gallery

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.offline.embedding import DescribedDrive
    from vpr_ros.offline.visual_words import VisualWords

    Vectors = NDArray[np.float32]

FIGURES = 'figures.json'

_METHODS = {'tsne': 't-SNE', 'umap': 'UMAP'}
_WORD_PANELS = {
    'words': ('Visual words',
              'The nine image patches, each of another image, in which each word is strongest. A '
              'good word shows one kind of thing: windows, kerbs, tree tops.'),
    'assignment': ('Dominant visual word per cell',
                   'The same place in each drive: the same things should get the same words. A '
                   'word that fills one row of every image encodes the image border.'),
    'energy': ('Residual energy of the visual words',
               'Boxes: the middle half of the images; lines: nine tenths of them. Words far above '
               'the others dominate the descriptor before normalisation. Words in orange dominate '
               'no cell and could be left out of the network.')}


@dataclass(frozen=True)
class VisualizeOptions:
    """
    What of the drives is read, and how it is drawn.

    `poses` says how the poses of bags and folders are read. `conditions` name their season or
    light, in their order; none, or one for each. Of each drive at most `max_frames` frames are
    described, evenly spaced, and at most `max_images` of these shown to the visual words. Two
    frames within `radius` metres show the same place. `seed` is that of t-SNE and UMAP.
    """

    conditions: Sequence[str] = ()
    image_topic: str | None = None
    pose_topic: str | None = None
    poses: PoseOptions = CHECKED
    max_frames: int = 400
    max_images: int = 60
    radius: float = defaults.CORRECT_RADIUS
    seed: int = 0


@dataclass(frozen=True)
class Visualization:
    """
    What `visualize` wrote: its `page`, the number of figures (`panels`) on it, and the results.

    `figures` is the content of figures.json; `notes` are lines that say what was measured, and
    which figures are missing and why.
    """

    page: Path
    panels: int
    figures: dict[str, object]
    notes: list[str]


@dataclass
class _Page:
    """A page in the making; `panels` are heading, caption and PNG file of each figure."""

    folder: Path
    panels: list[tuple[str, str, Path]] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_panel(self, name: str, heading: str, caption: str) -> Path:
        """Return the PNG file that the figure of a new panel has to be drawn to."""
        file = self.folder / f'{name}.png'
        self.panels.append((heading, caption, file))
        return file


def visualize(sources: Sequence[str | Path], encoder: Encoder, output: str | Path,
              options: VisualizeOptions | None = None, *, overwrite: bool = False
              ) -> Visualization:
    """
    Write a page (index.html, PNG files, figures.json) about drives seen through a network.

    `sources` are bags, folders of images with poses, or maps of the encoder's model; their poses
    have to be in one frame. Figures that a missing library or another kind of model rules out are
    left out, and noted. Raises ValueError for a wrong number of conditions, VprError for an output
    that must not be replaced, too few frames, or drives that never come near each other, and
    SourceError, MapError or FileNotFoundError for sources that cannot be read.
    """
    options = options or VisualizeOptions()
    check_output(output, FIGURES, overwrite=overwrite)  # before the long work
    drives = read_drives(sources, encoder, options)
    with whole_directory(output, FIGURES, overwrite=overwrite) as folder:
        page = _Page(folder)
        _draw_descriptors(page, drives, options)
        _draw_network(page, drives, encoder)
        (folder / FIGURES).write_text(json.dumps(page.figures, indent=2) + '\n')
        write_gallery(folder / 'index.html', f'{encoder.path.name} on '
                      f'{", ".join(drive.label for drive in drives)}', page.panels)
    return Visualization(Path(output, 'index.html'), len(page.panels), page.figures, page.notes)


def read_drives(sources: Sequence[str | Path], encoder: Encoder, options: VisualizeOptions
                ) -> list[DescribedDrive]:
    """Return the described drives of bags, folders and maps; a map has one for each session."""
    are_maps = [Path(path, MANIFEST).is_file() for path in sources]
    labels = _labels(options.conditions, are_maps)
    opened = [open_source(path, image_topic=options.image_topic, pose_topic=options.pose_topic,
                          poses=options.poses)
              for path in sources]
    for unread, is_map in zip(opened, are_maps, strict=True):
        if not is_map:
            unread.check()  # all of them before the long work
    drives: list[DescribedDrive] = []
    frame_ids: set[tuple[str, str]] = set()
    datum = options.poses.datum
    for unread, is_map, label in zip(opened, are_maps, labels, strict=True):
        if is_map:
            place_map = PlaceMap.load(str(unread), encoder)
            encoder = _in_space_of(place_map, encoder, drives)
            frame_ids.add((place_map.manifest.frame_id, place_map.manifest.child_frame_id))
            check_same_frames(frame_ids)
            datum = place_map.manifest.datum or datum
            drives += describe_map(place_map, options.max_frames, options.max_images)
            continue
        with unread.from_datum(datum) as source:
            datum = source.datum or datum
            frame_ids.add((source.frame_id, source.child_frame_id))
            check_same_frames(frame_ids)
            drives.append(describe_drive(source, encoder, label or source.name,
                                         options.max_frames, options.max_images))
    return drives


def _in_space_of(place_map: PlaceMap, encoder: Encoder, drives: Sequence[DescribedDrive]
                 ) -> Encoder:
    """Return the encoder of a map, if the drives before it were described by the same one."""
    projected = encoder.projected(place_map.projection)
    if drives and projected.space != encoder.space:
        raise SourceError('the map has a projection of its own: give it first, and no other map '
                          'with it')
    return projected


def _labels(conditions: Sequence[str], are_maps: Sequence[bool]) -> list[str | None]:
    """Return the condition of each source; None for maps, and where none was given."""
    count = are_maps.count(False)
    if conditions and len(conditions) != count:
        raise ValueError(f'{len(conditions)} conditions for {count} bags and folders: give one '
                         '--condition for each, or none')
    left = iter(conditions)
    return [None if is_map else next(left, None) for is_map in are_maps]


def _draw_descriptors(page: _Page, drives: Sequence[DescribedDrive],
                      options: VisualizeOptions) -> None:
    """Draw t-SNE and UMAP of the descriptors, with the recall between drives as their title."""
    raw = raw_descriptors(drives)
    title = f'{len(drives[0].positions)} frames of {drives[0].label}'
    if len(drives) > 1:
        recall = cross_drive_recall(drives, options.radius)
        page.figures['together'] = asdict(recall)
        title = f'Recall@1 between drives: {recall.centred:.0%} with each drive centred'
        without = '' if recall.share is None else f'{recall.share:.0%} without centring, '
        page.notes.append(f'{title}, {without}{recall.chance:.0%} by chance ({recall.frames} '
                          f'frames within {options.radius:g} m of another drive)')
    stages = {} if raw is None else {'as the model gives them': raw}
    stages['each drive centred'] = centred_descriptors(drives)
    for method in _METHODS:
        try:
            _draw_layouts(page, drives, stages, method, title, options)
        except VprError as error:
            page.notes.append(f'no {_METHODS[method]} figure: {error}')


def _draw_layouts(page: _Page, drives: Sequence[DescribedDrive],
                  stages: Mapping[str, Vectors], method: str, title: str,
                  options: VisualizeOptions) -> None:
    """Draw descriptors (M,D), by stage, in the plane; raise VprError as `embed` does."""
    embedded = {stage: embed(vectors, method, options.seed) for stage, vectors in stages.items()}
    layouts = {stage: points for stage, (points, _) in embedded.items()}
    trust = {stage: value for stage, (_, value) in embedded.items()}
    figures: dict[str, object] = {'trustworthiness': trust}
    title = f'{_METHODS[method]}. {title}'
    if len(drives) > 1:
        recall = {stage: layout_recall(drives, points, options.radius)
                  for stage, points in layouts.items()}
        figures['together'] = recall
        shares = ', '.join(f'{share:.0%} {stage}' for stage, share in recall.items())
        title += f'\nRecall@1 in this plane: {shares}'
    page.figures[method] = figures
    values = ', '.join(f'{value:.2f} {stage}' for stage, value in trust.items())
    caption = (f'Trustworthiness {values}: at 1, neighbours in the plane are neighbours among the '
               'descriptors. Distances between clusters mean nothing. The localiser centres each '
               'drive on its mean.')
    file = page.add_panel(method, f'Descriptors by {_METHODS[method]}', caption)
    draw_embedding(file, drives, layouts, options.radius, title)


def _draw_network(page: _Page, drives: Sequence[DescribedDrive], encoder: Encoder) -> None:
    """Draw the visual words and the first layer; note what cannot be drawn."""
    try:
        from vpr_ros.offline import visual_words
    except ModuleNotFoundError as error:
        page.notes.append(f'no figures of the network: this needs {how_to_install(error.name)}')
        return
    try:
        _draw_words(page, drives, encoder)
    except ModelError as error:
        page.notes.append(f'no figures of the visual words: {error}')
    weights = visual_words.first_filters(encoder)
    if weights is not None:
        file = page.add_panel('filters', 'Filters of the first layer',
                              'A trained network has edges and colours here. Noise means too '
                              'little training.')
        visual_words.draw_filters(file, weights)


def _draw_words(page: _Page, drives: Sequence[DescribedDrive], encoder: Encoder) -> None:
    """Draw the visual words on the drives' images; raise ModelError for a model without any."""
    from vpr_ros.offline import visual_words
    drives = [drive for drive in drives if drive.images]
    frames = [image for drive in drives for image in drive.images.values()]
    if not frames:
        page.notes.append('no figures of the visual words: the maps have no thumbnails')
        return
    words = visual_words.assign_words(encoder, frames)
    labels = [f'{drive.label}, frame {number}' for drive in drives for number in drive.images]
    files = {name: page.add_panel(name, *texts) for name, texts in _WORD_PANELS.items()}
    visual_words.draw_words(files['words'], words, frames)
    visual_words.draw_assignment(files['assignment'], words, frames, labels, _same_place(drives))
    visual_words.draw_energy(files['energy'], words)
    _note_words(page, words)


def _note_words(page: _Page, words: VisualWords) -> None:
    count, unused = words.assignment.shape[1], words.unused.tolist()
    page.figures |= {'words': count, 'unused_words': unused}
    page.notes.append(f'{count} visual words; {len(unused)} of them dominate no cell in '
                      f'{len(words.assignment)} images')


def _same_place(drives: Sequence[DescribedDrive]) -> list[int]:
    """Return one image of each drive, numbered among all, that show most nearly one place."""
    positions = [drive.positions[list(drive.images)] for drive in drives]
    farthest = [max(np.linalg.norm(others - position, axis=1).min() for others in positions)
                for position in positions[0]]
    place = positions[0][int(np.argmin(farthest))]
    begins = np.cumsum([0, *(len(others) for others in positions[:-1])])
    return [int(begin + np.linalg.norm(others - place, axis=1).argmin())
            for begin, others in zip(begins, positions, strict=True)]
