"""What `credentials/tpm.py` makes is opened by a TPM that others have written."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.credentials.tpm import StorageKey, activation_blob, new_hmac_key, read_storage_key
from tests.conftest import free_address
from tests.support.software_tpm import Refused, SoftwareTpm
from tests.support.swtpm import Swtpm, swtpm

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swtpm]:
    with swtpm(tmp_path_factory.mktemp("tpm") / "swtpm", free_address()) as running:
        running.create_keys()
        yield running


def keys_of(tpm: Swtpm) -> tuple[StorageKey, StorageKey]:
    return StorageKey.read("ek", tpm.endorsement_key), StorageKey.read("srk", tpm.storage_root_key)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_tpm_imports_the_key_and_signs_with_it(tpm: Swtpm, size: int) -> None:
    key = bytes(range(size))
    tpm.activate(activation_blob(*keys_of(tpm), key))
    assert tpm.sign(b"what is signed") == hmac.digest(key, b"what is signed", "sha256")


def test_names_are_those_that_the_tools_print(tpm: Swtpm) -> None:
    endorsement_key, storage_root_key = keys_of(tpm)
    assert (tpm.folder / "srk.name").read_bytes() == storage_root_key.name
    printed = tpm.tool("tpm2_readpublic", "-c", "0x81010001").decode()
    assert f"name: {endorsement_key.name_text}" in printed
    text = base64.b64encode(tpm.endorsement_key).decode()
    assert read_storage_key("ek", text) == endorsement_key


def test_a_blob_for_another_tpm_stays_shut(tpm: Swtpm, tmp_path: Path) -> None:
    endorsement_key, storage_root_key = keys_of(tpm)
    other = SoftwareTpm()
    foreign = StorageKey.read("ek", other.endorsement_key), StorageKey.read("srk", other.storage_root_key)
    for made_for in ((foreign[0], storage_root_key), (endorsement_key, foreign[1])):
        with pytest.raises(Refused, match="tpm2_activatecredential"):
            tpm.activate(activation_blob(*made_for, new_hmac_key()))


def test_a_blob_that_was_changed_stays_shut(tpm: Swtpm) -> None:
    blob = bytearray(activation_blob(*keys_of(tpm), new_hmac_key()))
    blob[60] ^= 1  # within the seed of the credential
    with pytest.raises(Refused):
        tpm.activate(bytes(blob))
