"""
Onboard visual localisation by visual place recognition, for ROS 2.

The public names: `from vpr_ros import Encoder, PlaceMap, Localizer`. They are imported when they
are first used (PEP 562), so that `import vpr_ros` and `vpr --help` are instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vpr_ros.encoding.encoder import Encoder
    from vpr_ros.io.sources import open_source
    from vpr_ros.localization.estimate import Estimate
    from vpr_ros.localization.localizer import Localizer
    from vpr_ros.maps.place_map import PlaceMap
    from vpr_ros.offline.build_map import build_map

__version__ = '0.2.0'

__all__ = ['Encoder', 'Estimate', 'Localizer', 'PlaceMap', 'build_map', 'open_source']

_HOMES = {
    'Encoder': 'vpr_ros.encoding.encoder',
    'Estimate': 'vpr_ros.localization.estimate',
    'Localizer': 'vpr_ros.localization.localizer',
    'PlaceMap': 'vpr_ros.maps.place_map',
    'build_map': 'vpr_ros.offline.build_map',
    'open_source': 'vpr_ros.io.sources',
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
