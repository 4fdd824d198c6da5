"""What the commands' options share: their types, the model's options, the look of a command."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from vpr_ros.core import defaults

if TYPE_CHECKING:
    from collections.abc import Callable

    from vpr_ros.encoding.encoder import Encoder

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

MODEL_HELP = 'ONNX model; the bundled one if left out'


def command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None],
            summary: str) -> argparse.ArgumentParser:
    """Add a command that calls `run`; return its parser."""
    parser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + '.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.set_defaults(run=run)
    return parser


def number(kind: type[int] | type[float], low: float, high: float = math.inf
           ) -> Callable[[str], float]:
    """Return what argparse calls for an option that takes `low` to `high`, and never nan."""
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high or math.isinf(value):
            limits = f'at least {low:g}' if math.isinf(high) else f'from {low:g} to {high:g}'
            raise argparse.ArgumentTypeError(f'{text} is out of range: {limits}')
        return value
    number.__name__ = kind.__name__  # argparse's word for it: 'invalid float value'
    return number


def size(text: str) -> tuple[int, int]:
    """Return (height, width) of a size that is written WxH."""
    try:
        width, height = (int(side) for side in text.split('x'))
    except ValueError as error:
        raise ValueError(f"--size is WxH, such as 320x240, not '{text}'") from error
    return height, width


def add_localizer_options(parser: argparse.ArgumentParser) -> None:
    """Add which model runs, and on what."""
    parser.add_argument('--model', help=MODEL_HELP)
    add_provider(parser)


def add_provider(parser: argparse.ArgumentParser) -> None:
    """Add what runs a model."""
    parser.add_argument('--provider', default='auto', type=_providers, metavar='NAME[,NAME]',
                        help=f'what runs the model: the first that loads of auto, or of '
                             f'{", ".join(defaults.PROVIDERS)}')


def _providers(text: str) -> str:
    from vpr_ros.encoding.engines import provider_names
    try:
        provider_names(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def load_encoder(options: argparse.Namespace) -> Encoder:
    """Return the encoder that `add_localizer_options` asks for: commands have many pictures."""
    from vpr_ros.encoding.encoder import Encoder
    return Encoder(options.model, options.provider, throughput=True)
