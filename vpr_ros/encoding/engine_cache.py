"""
The engine cache on disk: a folder for each engine, with a manifest of what it was built from.

An engine is used again only when its manifest matches; engines.py builds and runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
from typing import Any
from typing import TYPE_CHECKING

import onnxruntime
from vpr_ros.core import fields
from vpr_ros.core.files import sha256
from vpr_ros.core.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping

MANIFEST = 'engine.json'
FORMAT = 1
_LARGEST = 1.001  # cosine, rounded


@dataclass(frozen=True)
class Request:
    """
    The model to run, and how.

    `digest` is the SHA-256 of the file; `threads` is the number of CPU threads, 0 for all cores;
    `cache` is the folder of engines; `report` gets a line of text about each long step. With
    `throughput` each call on the CPU uses one thread, for as many concurrent calls. `batch` is the
    fixed batch size of a TensorRT engine.
    """

    path: Path
    digest: str
    threads: int
    cache: Path
    report: Callable[[str], None]
    throughput: bool = False
    batch: int = 1


def engine_key(name: str, request: Request, options: Mapping[str, str], *, device: str,
               library: str) -> dict[str, Any]:
    """Return everything that an engine depends on: a different key is a different engine."""
    return {'format': FORMAT, 'provider': name, 'model': request.digest,
            'file': request.path.name,  # TensorRT names its engine after it
            'batch': request.batch,
            'onnxruntime': onnxruntime.__version__, 'library': library, 'device': device,
            'options': dict(sorted(options.items()))}


def engine_folder(cache: Path, key: Mapping[str, Any]) -> Path:
    """Return the folder of an engine: a readable name with a digest of the whole key."""
    return cache / f'{key["provider"]}-{key["model"][:12]}-{_digest(key)}'


def read_manifest(folder: Path, key: Mapping[str, Any]) -> float | None:
    """
    Return the cosine of the engine in a folder; None unless it is complete and built for `key`.

    The manifest must hold exactly this key and list every file in the folder with its SHA-256.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
        if manifest['key'] != key or manifest['files'] != _digests(folder):
            return None
        return fields.number(manifest['cosine'], 'cosine', -_LARGEST, _LARGEST)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def write_manifest(folder: Path, key: Mapping[str, Any], cosine: float) -> None:
    """Write the manifest: the engine's key, its cosine to the CPU, and its files' digests."""
    manifest = {'key': dict(key), 'cosine': cosine, 'files': _digests(folder)}
    with whole_file(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=2) + '\n', encoding='utf-8')


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
