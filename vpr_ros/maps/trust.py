"""
What the owner of a map or a model signs, and what is loaded by whom it was signed.

A map is signed by its map.yaml, which holds the SHA-256 of all its other files and of its models;
a model by its own SHA-256. Keys and signatures are in core/signatures.py.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from vpr_ros.core.errors import SignatureError
from vpr_ros.core.files import sha256
from vpr_ros.core.signatures import sign_file
from vpr_ros.core.signatures import signer
from vpr_ros.core.signatures import SUFFIX
from vpr_ros.encoding.features import SIFT
from vpr_ros.encoding.model_file import check_model_file
from vpr_ros.maps.manifest import MANIFEST
from vpr_ros.maps.manifest import MAP
from vpr_ros.maps.manifest import read_manifest
from vpr_ros.maps.place_map import PlaceMap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vpr_ros.core.signatures import TrustedKeys

MODEL = 'model'
"""What a signature of a model says that it is of."""


def sign(path: str | Path, key: str | Path) -> str:
    """
    Sign the map or the model at `path` with the private key in a file; return the public key.

    Every byte of a map is checked first: nobody signs what is not whole. Raises
    FileNotFoundError, MapError, ModelError or SignatureError.
    """
    path = Path(path)
    if not path.is_dir():
        return sign_file(path, MODEL, check_model_file(path), key)
    manifest = path / MANIFEST
    before = manifest.read_bytes() if manifest.is_file() else b''
    PlaceMap.load(path, verify=True)
    return sign_file(manifest, MAP, hashlib.sha256(before).hexdigest(), key)


def signed_by(path: str | Path) -> str:
    """Return who has signed a map or a model, or why that is not known, for people to read."""
    path = Path(path)
    file, kind = (path / MANIFEST, MAP) if path.is_dir() else (path, MODEL)
    if not Path(f'{file}{SUFFIX}').exists():
        return 'no'
    try:
        return f'by the key {signer(file, kind, sha256(file)).hex()}'
    except SignatureError as error:
        return str(error)


def check_models(trusted: TrustedKeys, directory: str | Path, models: Iterable[str | Path | None]
                 ) -> None:
    """
    Raise SignatureError unless a map and what is used with it are from an owner of a key.

    A model is, if the signed map names its SHA-256, or if it is signed itself. What comes with the
    package ('' or None, 'sift') is trusted as the package is.
    """
    manifest, _ = read_manifest(Path(directory), trusted)
    named = {manifest.model.sha256, manifest.landmarks and manifest.landmarks.features}
    for model in models:
        if not model or model == SIFT:
            continue
        digest = check_model_file(model)
        if digest in named:
            continue
        try:
            trusted.check(Path(model), MODEL, digest)
        except SignatureError as error:
            raise SignatureError(f'{error} (nor is it a model that {directory} names)') from error
