"""The tutorial: every `vpr` command in it runs as it stands, in order, and says what it shows."""

from __future__ import annotations

from pathlib import Path
import re
import shlex

import pytest
from vpr_ros.cli import main

PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'tutorial.md'
BLOCK = re.compile(r'^```(bash|text)\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r'\d+(\.\d+)?')


def shape(line):
    """Return a line as a pattern: any number for a number, anything for an ellipsis."""
    words = NUMBER.sub('0', ' '.join(line.split()))
    return re.escape(words).replace(re.escape('...'), '.*')


def steps():
    """Yield the lines of commands, each with the lines that are shown after its block."""
    blocks = BLOCK.findall(PAGE.read_text())
    for (kind, text), (after, shown) in zip(blocks, [*blocks[1:], ('', '')], strict=True):
        if kind == 'bash':
            yield (text.replace('\\\n', ' ').splitlines(),
                   shown.splitlines() if after == 'text' else [])


@pytest.mark.timeout(300)
def test_every_command_does_what_the_tutorial_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    done = []
    for commands, shown in steps():
        for command in commands:
            program, *arguments = shlex.split(command)
            assert program == 'vpr', f'only vpr is tried: {command}'
            assert main(arguments) == 0, f'{command}\n{capsys.readouterr().err}'
            done.append(arguments[0])
        said = [NUMBER.sub('0', ' '.join(line.split()))
                for line in capsys.readouterr().out.splitlines()]
        for line in shown:
            assert any(re.fullmatch(shape(line), candidate) for candidate in said), line
    assert {'street', 'build-map', 'inspect', 'map-report', 'replay', 'evaluate', 'calibrate'
            } <= set(done)
