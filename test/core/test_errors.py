"""Errors: one line that can be shown, whatever a file put into it."""

from __future__ import annotations

import pytest
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import VprError


@pytest.mark.parametrize('text', ['a\nb', '\ud800', '\x1b[31m', '\ue000', '\U00018d09', '\u2028',
                                  'x' * 5000, '\ud800' * 5000], ids=ascii)
def test_an_error_is_one_printable_line(text: str) -> None:
    message = str(VprError(f'a.csv: {text}, in the line 5: remove it'))
    assert len(message) < 300
    assert message.isprintable()
    assert message.startswith('a.csv: ')
    assert message.endswith('in the line 5: remove it')


def test_an_error_says_what_it_was_told() -> None:
    assert str(MapError('käse is no map: build it again')) == 'käse is no map: build it again'
    assert str(MapError()) == ''
