"""
The package as a whole: versions, dependencies, import rules, colcon, and no trace of a machine.

What the modules do is tested beside them.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING
import xml.etree.ElementTree as ElementTree

import pytest
import vpr_ros
from vpr_ros.core.errors import _MODULES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from setuptools import Distribution

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / 'vpr_ros').rglob('*.py'))

# A room imports from the floors below its own, never from a room beside it.
FLOORS = (
    ('core',),
    ('encoding', 'io'),
    ('maps',),
    ('localization', 'street'),
    ('offline', 'ros', 'training'),
    ('cli',),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

ROS = re.compile(r'rclpy|cv_bridge|launch(_ros)?|ament_index_python|builtin_interfaces'
                 r'|\w+_(msgs|srvs)')
TRAINING = {'torch', 'torchvision', 'lightning', 'omegaconf', 'onnxscript',
            'pytorch_metric_learning', 'tensorboard'}
HEAVY = {'torch', 'rclpy', 'cv2', 'faiss', 'onnxruntime', 'matplotlib', 'rosbags'}
FRONT_DOOR = {'Encoder', 'Estimate', 'Localizer', 'PlaceMap', 'build_map', 'open_source'}

# PyPI's name -> rosdep's key; None where rosdep has no key (CONTRIBUTING.md lists those).
ROSDEP = {
    'numpy': 'python3-numpy',
    'scipy': 'python3-scipy',
    'opencv-python-headless': 'python3-opencv',
    'faiss-cpu': 'python3-faiss',
    'pyyaml': 'python3-yaml',
    'tqdm': 'python3-tqdm',
    'lz4': 'python3-lz4',
    'rosbags': 'python3-rosbags-pip',
    'simplejpeg': None,
    'onnxruntime': 'python3-onnxruntime-pip',
    'onnxruntime-gpu': 'python3-onnxruntime-gpu-pip',
    'onnxruntime-openvino': 'python3-onnxruntime-openvino-pip',
    'matplotlib': 'python3-matplotlib',
    'torch': 'python3-torch',
    'torchvision': 'python3-torchvision',
    'lightning': None,
    'pytorch-metric-learning': None,
    'omegaconf': None,
    'tensorboard': None,
    'onnx': None,
    'onnxscript': None,
    'cv-bridge': 'cv_bridge',
    'pytest': 'python3-pytest',
    'pytest-timeout': 'python3-pytest-timeout',
    'pytest-xdist': None,
    'hypothesis': 'python3-hypothesis',
    'psutil': 'python3-psutil',
    'playwright': None,
    'nbclient': None,
    'ipykernel': None,
    'umap-learn': None,
    'argcomplete': 'python3-argcomplete',
    'cryptography': 'python3-cryptography',
    'scikit-learn': 'python3-sklearn',
    'catkin-pkg': 'python3-catkin-pkg',
    'colcon-common-extensions': 'python3-colcon-common-extensions',
}


def test_versions_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    version = ElementTree.parse(ROOT / 'package.xml').findtext('version')
    assert _setup(monkeypatch).get_version() == version
    assert vpr_ros.__version__ == version
    assert re.search(rf'^{re.escape(str(version))}\b', (ROOT / 'CHANGELOG.rst').read_text(), re.M)


def test_the_front_door_leads_to_the_core() -> None:
    assert set(vpr_ros.__all__) == FRONT_DOOR
    for name in FRONT_DOOR:
        assert getattr(vpr_ros, name).__name__ == name
    assert set(dir(vpr_ros)) >= FRONT_DOOR
    with pytest.raises(AttributeError, match=r"'vpr_ros' has no attribute 'BackDoor'"):
        vpr_ros.BackDoor  # noqa: B018  (looking it up is the test)


def test_the_package_alone_imports_nothing() -> None:
    code = ('import sys\nbefore = set(sys.modules)\nimport vpr_ros\n'
            'print(*{name.split(".")[0] for name in set(sys.modules) - before'
            ' if name != "vpr_ros"} - sys.stdlib_module_names)')
    assert _run([sys.executable, '-c', code], cwd=ROOT).stdout.split() == []


def test_every_requirement_has_one_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: dict[str, set[str]] = {}
    for requirement in _requirements(_setup(monkeypatch)):
        name, bound = re.match(r'([\w-]+)(?:\[\w+\])?(?:>=([\w.]+))?', requirement).groups()
        bounds.setdefault(name, set()).update({bound} - {None})
    assert {name for name, found in bounds.items() if len(found) != 1} == set()


def test_every_requirement_is_in_package_xml(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = _setup(monkeypatch)
    manifest = (ROOT / 'package.xml').read_text()
    keyless = (ROOT / 'CONTRIBUTING.md').read_text()
    for requirement in _requirements(setup, without='dev'):
        name = re.match(r'[\w-]+', requirement)[0].lower().replace('_', '-')
        if name.startswith('ros-jazzy-'):
            key = name.removeprefix('ros-jazzy-').replace('-', '_')
        else:
            key = ROSDEP[name]
        if key is None:
            assert f'`{name}`' in keyless, f'{name} has no rosdep key: CONTRIBUTING.md says so'
        else:
            assert re.search(rf'\b{key}\b', manifest), f'{key} ({name}) is not in package.xml'


def test_what_is_said_to_be_installed_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = set(_setup(monkeypatch).extras_require)
    texts = {path: path.read_text() for pattern in (
        '*.md', 'Makefile', '.ci/*', 'docs/*.md', 'examples/*', 'benchmarks/**/*.py',
        'vpr_ros/**/*.py') for path in ROOT.glob(pattern) if path.is_file()}
    named = {path: {extra for names in re.findall(r"'\.\[([\w,]+)\]'", text)
                    for extra in names.split(',')} for path, text in texts.items()}
    assert {path: names - extras for path, names in named.items() if names - extras} == {}
    assert set(_MODULES) <= extras
    # The package is on no index.
    assert [path for path, text in texts.items()
            if re.search(r"""pip install [^\n]*?['"\s]vpr[-_]ros\b""", text)] == []


def test_ros_packages_that_are_imported_are_in_package_xml() -> None:
    depends = {element.text for element in ElementTree.parse(ROOT / 'package.xml').iter()
               if element.tag.endswith('depend')}
    sources = [*MODULES, *(ROOT / 'launch').glob('*.launch.py')]
    imported = {name.split('.')[0] for path in sources for name in _imports(path)}
    needed = {name for name in imported if ROS.fullmatch(name)}
    assert needed <= depends, f'not in package.xml: {sorted(needed - depends)}'


def test_every_room_is_a_python_package() -> None:
    assert {str(path.parent) for path in MODULES if not (path.parent / '__init__.py').is_file()
            } == set()


def test_every_room_has_a_floor() -> None:
    rooms = {_room(_name(path)) for path in MODULES} - {''}
    assert rooms == set(FLOOR), 'FLOORS above lists the packages inside vpr_ros, and only those'


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_rooms(path: Path) -> None:
    room = _room(_name(path))
    for name in _imports(path):
        top, other = name.split('.')[0], _room(name)
        if ROS.fullmatch(top):
            assert room == 'ros', f'only vpr_ros/ros may import {name}'
        if top in TRAINING:
            assert room == 'training', f'only vpr_ros/training may import {name}'
        if top == 'onnx':  # the extra that draws what a network sees has it, too
            assert room in ('offline', 'training'), \
                f'only vpr_ros/offline and vpr_ros/training may import {name}'
        if top == 'vpr_ros' and room and other != room:
            assert other, f'{path}: import the module itself, not by way of `vpr_ros`'
            below = [lower for lower in FLOOR if FLOOR[lower] < FLOOR[room]]
            assert other in below, (f'vpr_ros/{room} may not import {name}, only from the rooms '
                                    f'below it: {", ".join(below) or "none"}')


def test_no_module_imports_itself_by_a_detour() -> None:
    names = {_name(path) for path in MODULES}
    graph = {_name(path): {name for name in _imports(path, lazy=False) if name in names}
             for path in MODULES}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the way round


def test_help_imports_nothing_heavy() -> None:
    code = ('import sys; sys.argv = ["vpr", "--help"]\n'
            'from vpr_ros.cli import main\n'
            'try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n'
            f'print("heavy:", *sorted({HEAVY} & set(sys.modules)))')
    result = _run([sys.executable, '-c', code], cwd=ROOT)
    assert result.stdout.splitlines()[-1].strip() == 'heavy:'


def test_colcon_builds_the_package(tmp_path: Path) -> None:
    pytest.importorskip('colcon_core')
    colcon = shutil.which('colcon', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    source = tmp_path / 'src' / 'vpr_ros'
    files = _tracked(and_new=True)
    for path in files:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)

    # A package.xml that is not valid makes a plain `python` package of it, without a word.
    assert '(ros.ament_python)' in _run([colcon, 'list'], cwd=tmp_path).stdout
    _run([colcon, 'build'], cwd=tmp_path)

    prefix = tmp_path / 'install' / 'vpr_ros'
    assert (prefix / 'lib' / 'vpr_ros' / 'localizer').is_file()
    assert (prefix / 'lib' / 'vpr_ros' / 'vpr').is_file()
    assert (prefix / 'share/ament_index/resource_index/packages/vpr_ros').is_file()
    assert (prefix / 'share/vpr_ros/package.xml').is_file()
    package, = (path.parent for path in prefix.rglob('vpr_ros/__init__.py'))
    for path in files:
        if path.is_relative_to(ROOT / 'vpr_ros'):
            assert (package / path.relative_to(ROOT / 'vpr_ros')).is_file(), f'not built: {path}'
    for folder in ('config', 'examples', 'launch', 'models'):
        expected = {path.name for path in files if path.parent == ROOT / folder}
        assert {path.name for path in (prefix / 'share/vpr_ros' / folder).glob('*')} == expected


def test_nothing_tracked_names_this_machine() -> None:
    places = [str(ROOT)] if len(ROOT.parts) > 2 else []
    machine = re.compile('|'.join([*map(re.escape, places), r'/home/\w', r'/Users/\w',
                                   r'(extra-)?index-url', 'find-links', 'file:/' + '//']).encode())
    found = [f'{path.relative_to(ROOT)}: {match[0].decode()}' for path in _tracked()
             if path != Path(__file__).resolve() and (match := machine.search(path.read_bytes()))]
    assert not found


def _setup(monkeypatch: pytest.MonkeyPatch) -> Distribution:
    pytest.importorskip('setuptools')
    from distutils.core import run_setup
    monkeypatch.chdir(ROOT)
    return run_setup('setup.py', stop_after='init')


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def _room(name: str) -> str:
    """Return the room of a module, '' for the package itself and for what is outside it."""
    parts = name.split('.')
    return parts[1] if parts[0] == 'vpr_ros' and len(parts) > 1 else ''


def _imports(path: Path, *, lazy: bool = True) -> Iterator[str]:
    """Yield the full names of what a file imports; `lazy` includes imports that run later."""
    nodes = [ast.parse(path.read_text(encoding='utf-8'))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}:{node.lineno}: imports are absolute'
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split('.'), alias.name)
                module = inner.with_suffix('.py').is_file() or inner.is_dir()
                yield f'{node.module}.{alias.name}' if module else node.module
        later = isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test).endswith('TYPE_CHECKING'))
        if lazy or not later:
            nodes.extend(ast.iter_child_nodes(node))


def _requirements(setup: Distribution, without: str = '') -> Iterator[str]:
    """Yield what setup.py requires, in all extras but the one named."""
    yield from setup.install_requires
    for name, requirements in setup.extras_require.items():
        if name != without:
            yield from requirements


def _tracked(*, and_new: bool = False) -> list[Path]:
    """
    Return the files under version control; `and_new` adds those that it does not ignore.

    In an unpacked archive, without version control: all files but those that were built.
    """
    git = subprocess.run(
        ['git', 'ls-files', '-z', '--cached',
         *(('--others', '--exclude-standard') if and_new else ())],
        cwd=ROOT, capture_output=True, check=False) if shutil.which('git') else None
    if git is not None and git.returncode == 0 and git.stdout:
        paths = [ROOT / name.decode() for name in git.stdout.split(b'\0') if name]
    else:
        built = {'build', 'dist', 'install', 'log', 'demo', '__pycache__'}
        paths = [path for path in ROOT.rglob('*') if not any(
            part.startswith('.') or part in built or part.endswith('.egg-info')
            for part in path.relative_to(ROOT).parts)]
    return sorted(path for path in paths if path.is_file())


def _run(command: list[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result
