"""Signatures of maps and models: who signed what is loaded, and what a signature is of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import shutil
import stat
import subprocess

import numpy as np
import onnx
import pytest
from small_drive import write_map
from thumbnail_model import write_thumbnail_model
from vpr_ros.core import poses
from vpr_ros.core.errors import MapError
from vpr_ros.core.errors import SignatureError
from vpr_ros.core.files import sha256
from vpr_ros.core.signatures import new_key
from vpr_ros.core.signatures import sign_file
from vpr_ros.core.signatures import TrustedKeys
from vpr_ros.encoding.encoder import Encoder
from vpr_ros.maps.manifest import Manifest
from vpr_ros.maps.manifest import ModelIdentity
from vpr_ros.maps.manifest import read_manifest
from vpr_ros.maps.manifest import Session
from vpr_ros.maps.place_map import PlaceMap
from vpr_ros.maps.trust import check_models
from vpr_ros.maps.trust import sign
from vpr_ros.maps.trust import signed_by

pytest.importorskip('cryptography')


@pytest.fixture(scope='module')
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two keys, m.onnx, other.onnx and a map of m.onnx, signed with `key`."""
    folder = tmp_path_factory.mktemp('office')
    new_key(folder / 'key')
    new_key(folder / 'foreign')
    model = write_thumbnail_model(folder / 'm.onnx')
    write_thumbnail_model(folder / 'other.onnx', gain=2.0)
    sign(write_map(folder / 'map', model), folder / 'key')
    return folder


@pytest.fixture
def site(office: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder, to change."""
    return Path(shutil.copytree(office, tmp_path / 'site'))


@pytest.fixture
def trusted(office: Path) -> TrustedKeys:
    return TrustedKeys.read(office / 'key.pub')


def test_a_signed_map_is_loaded_with_its_model(site: Path, trusted: TrustedKeys) -> None:
    check_models(trusted, site / 'map', [site / 'm.onnx', '', None, 'sift'])
    encoder = Encoder(site / 'm.onnx', provider='cpu', threads=1)
    assert len(PlaceMap.load(site / 'map', encoder, trusted=trusted)) > 0
    assert signed_by(site / 'map').startswith('by the key ')


def test_a_private_key_is_read_by_its_owner_only(office: Path) -> None:
    assert stat.S_IMODE((office / 'key').stat().st_mode) == 0o600
    with pytest.raises(SignatureError, match='keys are not replaced'):
        new_key(office / 'key')


def test_openssl_reads_keys_and_signatures(site: Path) -> None:
    if not shutil.which('openssl'):
        pytest.skip('openssl is not installed')
    public = subprocess.run(['openssl', 'pkey', '-in', site / 'key', '-pubout'], check=True,
                            capture_output=True).stdout
    assert public == (site / 'key.pub').read_bytes()
    (site / 'signature').write_bytes(bytes.fromhex(
        (site / 'map/map.yaml.sig').read_text().split()[-1]))
    (site / 'statement').write_text(
        f'vpr_ros signature 1\nmap {sha256(site / "map/map.yaml")}\n')
    subprocess.run(['openssl', 'pkeyutl', '-verify', '-pubin', '-inkey', 'key.pub', '-rawin',
                    '-in', 'statement', '-sigfile', 'signature'], cwd=site, check=True,
                   capture_output=True)


def _unsigned(site: Path) -> None:
    (site / 'map/map.yaml.sig').unlink()


def _by_another(site: Path) -> None:
    sign(site / 'map', site / 'foreign')


def _of_another_map(site: Path) -> None:
    write_map(site / 'two', site / 'm.onnx', range(20))
    sign(site / 'two', site / 'key')
    shutil.copy(site / 'two/map.yaml.sig', site / 'map')


def _of_a_model(site: Path) -> None:
    """Sign what has the SHA-256 of the map.yaml as a model: its name says that it is none."""
    sign_file(site / 'map/map.yaml', 'model', sha256(site / 'map/map.yaml'), site / 'key')


def _changed(site: Path) -> None:
    manifest = site / 'map/map.yaml'
    manifest.write_text(manifest.read_text().replace('spacing: ', 'spacing: 1'))


def _with_another_key(site: Path) -> None:
    """Name a trusted key in a signature of another."""
    own = (site / 'map/map.yaml.sig').read_text().splitlines()
    sign(site / 'map', site / 'foreign')
    other = (site / 'map/map.yaml.sig').read_text().splitlines()
    (site / 'map/map.yaml.sig').write_text('\n'.join([*own[:2], other[2], '']))


def _damaged(site: Path) -> None:
    (site / 'map/map.yaml.sig').write_bytes(b'\xff' * 1000)


def _endless(site: Path) -> None:
    (site / 'map/map.yaml.sig').unlink()
    (site / 'map/map.yaml.sig').symlink_to('/dev/zero')


@pytest.mark.parametrize(('harm', 'reason'), [
    (_unsigned, 'is not signed'), (_by_another, 'not among the trusted ones'),
    (_of_another_map, 'not what its signature is of'),
    (_of_a_model, 'not what its signature is of'), (_changed, 'not what its signature is of'),
    (_with_another_key, 'not what its signature is of'), (_damaged, 'is damaged'),
    (_endless, 'cannot be read')])
def test_a_map_that_its_owner_did_not_sign_is_refused(
        site: Path, trusted: TrustedKeys, harm: Callable[[Path], None], reason: str) -> None:
    harm(site)
    for load in (lambda: PlaceMap.load(site / 'map', trusted=trusted),
                 lambda: check_models(trusted, site / 'map', []),
                 lambda: read_manifest(site / 'map', trusted)):
        with pytest.raises(SignatureError, match=reason):
            load()
    PlaceMap.load(site / 'map')


def test_a_signature_covers_every_byte_of_vectors_that_stay_on_disk(
        tmp_path: Path, office: Path, trusted: TrustedKeys, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    monkeypatch.setattr('vpr_ros.core.files._SPOT', 16)  # of a file that need not be large
    count = 270
    vectors = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    manifest = Manifest(ModelIdentity('ab' * 32, 'm.onnx', 8, 48, 64), (Session('w', 'w'),),
                        spacing=1.0, index='rerank')
    PlaceMap.build(vectors, np.arange(count), poses.planar(np.arange(count) * 1.0, 0.0, 0.0),
                   np.zeros(count, np.int32), manifest).save(tmp_path / 'map')
    sign(tmp_path / 'map', office / 'key')
    PlaceMap.load(tmp_path / 'map', trusted=trusted)
    with (tmp_path / 'map/vectors.npy').open('r+b') as file:
        file.seek(128 + 2 * 8 * 100)  # a vector between the spots that are checked otherwise
        turned = np.roll(np.frombuffer(file.read(16), np.float16), 1)
        file.seek(-16, 1)
        file.write(turned.tobytes())
    PlaceMap.load(tmp_path / 'map')
    with pytest.raises(MapError, match='was changed'):
        PlaceMap.load(tmp_path / 'map', trusted=trusted)


def test_another_model_needs_a_signature_of_its_own(site: Path, trusted: TrustedKeys) -> None:
    other = site / 'other.onnx'
    # One that says of itself that it is the map's: only its owner may say so.
    model = onnx.load(str(other))
    model.metadata_props.add(key='same_as', value=sha256(site / 'm.onnx'))
    onnx.save(model, str(other))
    PlaceMap.load(site / 'map', Encoder(other, provider='cpu', threads=1), trusted=trusted)
    with pytest.raises(SignatureError, match=r'not signed.*nor is it a model that'):
        check_models(trusted, site / 'map', [other])
    sign(other, site / 'foreign')
    with pytest.raises(SignatureError, match='not among'):
        check_models(trusted, site / 'map', [other])
    sign(other, site / 'key')
    check_models(trusted, site / 'map', [other])
    assert signed_by(other).startswith('by the key ')


def test_a_map_that_is_not_whole_is_not_signed(site: Path) -> None:
    (site / 'map/index.faiss').write_bytes(b'')
    with pytest.raises(MapError):
        sign(site / 'map', site / 'key')


def test_a_map_that_is_written_again_is_no_longer_signed(site: Path, trusted: TrustedKeys) -> None:
    PlaceMap.load(site / 'map').save(site / 'map', overwrite=True)
    with pytest.raises(SignatureError, match='is not signed'):
        PlaceMap.load(site / 'map', trusted=trusted)
    assert signed_by(site / 'map') == 'no'


def test_several_keys_may_be_trusted(site: Path) -> None:
    keys = site / 'keys'
    keys.write_bytes((site / 'foreign.pub').read_bytes() + b'# and\n'
                     + (site / 'key.pub').read_bytes())
    PlaceMap.load(site / 'map', trusted=TrustedKeys.read(keys))


def test_what_is_no_key_is_refused(site: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    other = ec.generate_private_key(ec.SECP256R1())
    (site / 'ec').write_bytes(other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b'x')))
    (site / 'ec.pub').write_bytes(other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    (site / 'bad.pub').write_text('-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n')
    for name, reason in (('none', 'cannot be read'), ('key', 'no public key'),
                         ('ec.pub', 'another kind'), ('bad.pub', 'damaged')):
        with pytest.raises(SignatureError, match=reason):
            TrustedKeys.read(site / name)
    for name, reason in (('key.pub', 'no private key'), ('ec', 'is encrypted'),
                         ('none', 'cannot be read')):
        with pytest.raises(SignatureError, match=reason):
            sign(site / 'map', site / name)
