"""
A grid of local descriptors from inside a model: what its layer of an eighth of the image sees.

The layer becomes a further output as the model is loaded; the file stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import numpy as np
from vpr_ros.core import images
from vpr_ros.core.errors import first_line
from vpr_ros.core.errors import ModelError
from vpr_ros.encoding.engines import cpu_session
from vpr_ros.encoding.engines import input_size
from vpr_ros.encoding.model_file import check_model_file
from vpr_ros.encoding.model_file import layers
from vpr_ros.encoding.model_file import with_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    import onnxruntime

_OPERATORS = frozenset({'Relu', 'Add', 'Clip', 'Conv', 'Mul'})
"""Those whose outputs may be such a layer."""

_SHRUNK = 8


class GridNetwork:
    """
    The layer of an encoder's model whose sides are an eighth of the image's: the last such one.

    `rows` and `columns` are those of the grid, `channels` C is what a cell has. Raises ModelError
    for a model that has no such layer.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        self.path = Path(path)
        check_model_file(self.path)
        model = self.path.read_bytes()
        names = layers(model, _OPERATORS)
        probe, found = cpu_session(self.path, threads, with_outputs(model, names),
                                   optimise=False), ''
        self.height, self.width = input_size(probe)
        self.rows, self.columns, self.channels = self.height // _SHRUNK, self.width // _SHRUNK, 0
        image = np.full((1, self.height, self.width, 3), 127, np.uint8)
        for name, value in zip(names, self._run(probe, names, image), strict=True):
            if value.ndim == 4 and value.dtype == np.float32 \
                    and value.shape[::2] == (1, self.rows) and value.shape[3] == self.columns:
                found, self.channels = name, value.shape[1]
        if not found:
            raise ModelError(f'{self.path} has no layer of an eighth of its image '
                             f'({self.rows}x{self.columns}): images cannot be verified with it')
        self._layer = found
        self._session = cpu_session(self.path, threads, with_outputs(model, [found]))

    def extract(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the grid float32 (rows * columns, C) of an image uint8 (H,W,3) RGB, by rows."""
        image = images.resize(rgb, self.height, self.width)[None]
        grid: NDArray[np.float32] = self._run(self._session, [self._layer], image)[0][0]
        return np.ascontiguousarray(grid.reshape(self.channels, -1).T)

    def _run(self, session: onnxruntime.InferenceSession, names: list[str],
             image: NDArray[np.uint8]) -> list[Any]:
        try:
            return list(session.run(names, {'image': image}))
        except Exception as error:
            raise ModelError(f'{self.path} does not run ({first_line(error)})') from error
