"""The parsers of all commands: their help, what a typing error is told, completion."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest
import vpr_ros
from vpr_ros.cli import _parser
from vpr_ros.cli import main
from vpr_ros.core.errors import how_to_install

ROOT = Path(__file__).resolve().parents[2]


def parsers():
    """Return the parser of `vpr` and those of its commands, by name."""
    top = _parser()
    commands = next(action.choices for action in top._actions
                    if isinstance(action, argparse._SubParsersAction))
    return {'vpr': top, **commands}


@pytest.mark.parametrize('name', parsers())
def test_help_shows_no_default_that_says_nothing(name):
    text = ' '.join(parsers()[name].format_help().split())
    assert not re.search(r'\(default: (None|True|False|\[.*?\]|\(.*?\)|)\)', text)
    assert 'SUPPRESS' not in text


@pytest.mark.parametrize('name', parsers())
def test_every_option_is_explained(name):
    for action in parsers()[name]._actions:
        assert action.help or action.metavar == 'COMMAND', action


def error_of(capsys, *arguments):
    """Return the last line that a wrong use of `vpr` prints."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith('usage: vpr')
    return err.splitlines()[-1]


@pytest.mark.parametrize(('arguments', 'said'), [
    ('replya', "vpr: error: there is no command 'replya': did you mean 'replay'?"),
    ('buildmap a -o m', "vpr: error: there is no command 'buildmap': did you mean 'build-map'?"),
    ('--verison', "vpr: error: there is no option '--verison': did you mean '--version'?"),
    ('replay b --map m --outptu=o',
     "vpr replay: error: there is no option '--outptu': did you mean '--output'?"),
    ('replay b -map=m -o o',
     "vpr replay: error: there is no option '-map': did you mean '--map'?"),
    ('build-map b -output m',
     "vpr build-map: error: there is no option '-output': did you mean '--output'?"),
    ('replay b --map m -o o --truth_topic /t',
     "vpr replay: error: there is no option '--truth_topic': did you mean '--truth-topic'?"),
    ('inspect m --qqq', "vpr inspect: error: there is no option '--qqq': vpr inspect --help lists "
                        'the options'),
    ('street -o s --season sprng',
     "vpr street: error: --season cannot be 'sprng': did you mean 'spring'?"),
    ('street -o s --season monsoon', "vpr street: error: --season cannot be 'monsoon': choose "
                                     'from spring, winter, night, rain'),
    ('inspect a b', 'vpr inspect: error: unrecognized arguments: b'),
    ('replay b --map m', 'vpr replay: error: the following arguments are required: --output/-o'),
])
def test_a_typing_error_is_told_what_was_meant(capsys, arguments, said):
    assert error_of(capsys, *arguments.split()) == said


def test_a_command_that_is_like_no_other_is_told_all(capsys):
    said = error_of(capsys, 'fly')
    assert said.startswith("vpr: error: there is no command 'fly': choose from build-map, ")
    assert said.endswith('prepare-engine, sign')


def test_values_that_look_like_options_are_left_alone():
    options = parsers()['replay'].parse_args(['--map', 'm', '-o', 'o', '--min-conf', '.5', '--',
                                              '--bag'])
    assert (options.bag, options.min_confidence) == ('--bag', 0.5)


@pytest.mark.parametrize('page', [*sorted((ROOT / 'docs').glob('*.md')), ROOT / 'README.md'],
                         ids=lambda page: page.name)
def test_the_commands_of_the_pages_are_understood(page):
    parser = _parser()
    fences = re.findall(r'^```\w*\n(.*?)^```$', page.read_text(), re.M | re.S)
    for line in re.findall(r'^(?:\$ )?(vpr (?:[^\n]*\\\n)*[^\n]*)$', '\n'.join(fences), re.M):
        if '...' not in line:
            parser.parse_args(shlex.split(line.replace('\\\n', ' '), comments=True)[1:])


def test_make_demo_says_what_to_type_next():
    demo = re.search(r'^demo:.*?(?=^\w+:)', (ROOT / 'Makefile').read_text(), re.M | re.S)[0]
    said = re.findall(r"echo '(.*?)'", demo, re.S)
    assert any('source $(BIN)/activate' in line for line in said)
    commands = [line.replace('\\\n', ' ').split() for line in said if line.startswith('  vpr')]
    assert len(commands) > 1
    for command in commands:
        _parser().parse_args(command[1:])


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        main(['--version'])
    assert end.value.code == 0
    assert capsys.readouterr().out == f'vpr {vpr_ros.__version__}\n'


@pytest.mark.parametrize(('line', 'expected'), [
    ('vpr rep', {'replay'}),
    ('vpr street --seas', {'--season'}),
    ('vpr street --season ', {'spring', 'winter', 'night', 'rain'}),
])
def test_the_shell_completes_commands_options_and_choices(tmp_path, line, expected):
    pytest.importorskip('argcomplete')
    found = tmp_path / 'found'
    # As the shell function of register-python-argcomplete asks.
    subprocess.run(
        ['bash', '-c', '"$0" -m vpr_ros.cli 8> found 9> /dev/null', sys.executable], check=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT), '_ARGCOMPLETE': '1', 'COMP_LINE': line,
             'COMP_POINT': str(len(line)), '_ARGCOMPLETE_IFS': '\n', 'COMP_TYPE': '9'})
    assert {word.strip() for word in found.read_text().splitlines()} == expected


@pytest.mark.parametrize(('module', 'extra'), [
    ('torch', '.[train]'), ('matplotlib.figure', '.[viz]'), ('umap', '.[umap]'),
    ('onnxruntime', '.[cpu]'), ('sensor_msgs.msg', '.[ros]'), ('faiss', '.')])
def test_a_missing_module_is_told_with_what_installs_it(monkeypatch, capsys, module, extra):
    assert f"pip install -e '{extra}'" in how_to_install(module)

    def missing(path, *, verify):
        raise ModuleNotFoundError(name=module)
    monkeypatch.setattr('vpr_ros.offline.inspection.inspect', missing)
    assert main(['inspect', 'map']) == 1
    assert capsys.readouterr().err == (
        f"vpr: error: this command needs '{module.split('.')[0]}', which is not installed: pip "
        f"install -e '{extra}' in the checkout of vpr_ros\n")


@pytest.mark.parametrize(('chosen', 'used'), [(None, '1'), ('3', '3')])
def test_replay_leaves_the_cores_to_the_network(monkeypatch, tmp_path, chosen, used):
    monkeypatch.setenv('OPENBLAS_NUM_THREADS', '3')
    if chosen is None:
        monkeypatch.delenv('OPENBLAS_NUM_THREADS')
    assert main(['replay', 'no.bag', '--map', 'no', '-o', str(tmp_path / 'out')]) == 1
    assert os.environ['OPENBLAS_NUM_THREADS'] == used
