"""
The metrics of a training as metrics.csv, continued when a training is resumed.

Lightning's own CSVLogger deletes the file of the run before.
"""

from __future__ import annotations

import csv
from typing import Any
from typing import TYPE_CHECKING

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class MetricsLog(Logger):
    """
    Writes a row per logged step: epoch, step, and each metric by its name.

    Rows of an earlier run are kept up to `first_step`, from which the training continues; 0 for a
    new training.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        super().__init__()
        self._path = path
        self._rows: list[dict[str, Any]] = []
        if first_step and path.is_file():
            with path.open(newline='') as file:
                self._rows = [row for row in csv.DictReader(file)
                              if int(row['step'] or 0) < first_step]

    @property
    def name(self) -> str:
        """Name of the file."""
        return self._path.name

    @property
    def version(self) -> str:
        """There is one version, continued."""
        return ''

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: the checkpoint has the experiment."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the metrics of a step, and write the file."""
        self._rows.append({**metrics, 'step': step or 0})
        names = dict.fromkeys(('epoch', 'step', *sorted({n for row in self._rows for n in row})))
        with whole_file(self._path) as part, part.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(names), restval='')
            writer.writeheader()
            writer.writerows(self._rows)
