"""
Signatures of files: who made a map or a model, beside the hashes that say it is unchanged.

Ed25519 (RFC 8032), by the optional package `cryptography`. Keys are PEM files, as OpenSSL writes
them; what of a map is signed is in maps/trust.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

from vpr_ros.core.errors import how_to_install
from vpr_ros.core.errors import SignatureError
from vpr_ros.core.files import check_file
from vpr_ros.core.files import read_inside
from vpr_ros.core.files import whole_file

SUFFIX = '.sig'
"""What the name of a signature adds to that of the file that it is of."""

PUBLIC = '.pub'
"""What the name of a public key adds to that of its private key."""

_FORM = re.compile(r'vpr_ros signature 1\nkey: ([0-9a-f]{64})\nsignature: ([0-9a-f]{128})\n')
_PEM = re.compile(b'-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----', re.DOTALL)
_MOST_BYTES = 1 << 16  # of a signature or of a file of keys


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys, 32 bytes each, whose signatures are accepted."""

    keys: frozenset[bytes]

    @classmethod
    def read(cls, path: str | Path) -> TrustedKeys:
        """
        Read a file of one or several public keys in PEM, as `cat *.pub` makes it.

        Raises SignatureError when it cannot be read, has none, or one of another kind.
        """
        keys = set()
        for block in _PEM.findall(_read(Path(path))):
            try:
                key = _serialization().load_pem_public_key(block)
            except ValueError as error:
                raise SignatureError(f'{path} has a public key that is damaged') from error
            keys.add(_raw(key, path))
        if not keys:
            raise SignatureError(f'{path} has no public key: name one that `vpr sign --new-key` '
                                 'wrote, or several in one file')
        return cls(frozenset(keys))

    def check(self, path: Path, kind: str, digest: str) -> None:
        """
        Raise SignatureError unless one of the keys has signed the file, of a kind, at `path`.

        `digest` is its SHA-256 in hexadecimal digits.
        """
        if signer(path, kind, digest) not in self.keys:
            raise SignatureError(f'{path} is signed with a key that is not among the trusted ones')


def new_key(path: str | Path) -> Path:
    """
    Write a new private key to a file that only its owner can read, and its public key beside it.

    Returns the path of the public one. Raises SignatureError when there is one already: what it
    has signed would be lost.
    """
    private, public = Path(path), Path(f'{path}{PUBLIC}')
    for file in (private, public):
        check_file(file)
        if file.exists():
            raise SignatureError(f'{file} exists already: keys are not replaced, choose another '
                                 'name')
    forms = _serialization()
    key = _ed25519().Ed25519PrivateKey.generate()
    with whole_file(private) as part:
        part.touch(mode=0o600)
        part.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8,
                                           forms.NoEncryption()))
    with whole_file(public) as part:
        part.write_bytes(key.public_key().public_bytes(
            forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))
    return public


def sign_file(path: Path, kind: str, digest: str, key: str | Path) -> str:
    """
    Write the signature of a file of a kind and a SHA-256 beside it; return the public key.

    `key` is a file with a private key. Raises SignatureError when it is none of Ed25519.
    """
    try:
        private = _serialization().load_pem_private_key(_read(Path(key)), None)
    except TypeError as error:
        raise SignatureError(f'{key} is encrypted: decrypt it first (openssl pkey -in KEY -out '
                             'PLAIN)') from error
    except ValueError as error:
        raise SignatureError(f'{key} is no private key: make one with `vpr sign --new-key`'
                             ) from error
    public = _raw(private.public_key(), key)
    signature = private.sign(_statement(kind, digest))
    with whole_file(f'{path}{SUFFIX}') as part:
        part.write_text(f'vpr_ros signature 1\nkey: {public.hex()}\nsignature: '
                        f'{signature.hex()}\n')
    return public.hex()


def signer(path: Path, kind: str, digest: str) -> bytes:
    """
    Return the public key, 32 bytes, that has signed a file of a kind and a SHA-256.

    Raises SignatureError when the file has no signature, or one that is not of it.
    """
    signature = Path(f'{path}{SUFFIX}')
    if not signature.exists():
        raise SignatureError(f'{path} is not signed: there is no {signature.name} beside it; sign '
                             f'it with `vpr sign`')
    form = _FORM.fullmatch(_read(signature).decode('ascii', 'replace'))
    if form is None:
        raise SignatureError(f'{signature} is damaged: sign again with `vpr sign`')
    key = bytes.fromhex(form[1])
    from cryptography.exceptions import InvalidSignature
    try:
        _ed25519().Ed25519PublicKey.from_public_bytes(key).verify(
            bytes.fromhex(form[2]), _statement(kind, digest))
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f'{path} is not what its signature is of: it was changed, or the '
                             'signature is that of another file') from error
    return key


def _statement(kind: str, digest: str) -> bytes:
    """Return what is signed: a signature of a model is none of a map, nor one of anything else."""
    return f'vpr_ros signature 1\n{kind} {digest}\n'.encode()


def _read(path: Path) -> bytes:
    try:
        return read_inside(path.parent.resolve(), path.name, _MOST_BYTES)
    except OSError as error:
        raise SignatureError(f'{path} cannot be read ({error.strerror or error})') from error


def _raw(key: Any, path: str | Path) -> bytes:
    """Return the 32 bytes of a public key, or raise SignatureError for one of another kind."""
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise SignatureError(f'{path} has a key of another kind than Ed25519')
    forms = _serialization()
    raw: bytes = key.public_bytes(forms.Encoding.Raw, forms.PublicFormat.Raw)
    return raw


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError as error:
        raise SignatureError(f'signatures need {how_to_install("cryptography")}') from error
    return ed25519


def _serialization() -> Any:
    _ed25519()  # says what to install
    from cryptography.hazmat.primitives import serialization
    return serialization
