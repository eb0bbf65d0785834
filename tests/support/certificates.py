"""A certificate authority for tests, and what it signs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)
SIGNER = "app01.example.org"


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """An authority whose files, and those of one signer, are in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._certify("ca", self._key, is_authority=True)
        signer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._certify(SIGNER, signer, is_authority=False)
        text = signer.private_bytes(
            PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (folder / f"{SIGNER}.key").write_bytes(text)
        self.revoke_nothing(until=datetime.now(UTC) + DAY)

    @property
    def config(self) -> dict[str, Any]:
        """fedmsg's keys."""
        return {
            "validate_signatures": True,
            "ssldir": str(self._folder),
            "certname": SIGNER,
            "ca_cert_location": str(self._folder / "ca.crt"),
            "crl_location": str(self._folder / "crl.pem"),
        }

    def revoke_nothing(self, until: datetime) -> None:
        """Write a list of revoked certificates that is good ``until`` then."""
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name("ca"))
            .last_update(until - 2 * DAY)
            .next_update(until)
            .sign(self._key, hashes.SHA256())
        )
        (self._folder / "crl.pem").write_bytes(crl.public_bytes(PEM))

    def _certify(self, name: str, key: Any, *, is_authority: bool) -> None:
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        (self._folder / f"{name}.crt").write_bytes(certificate.public_bytes(PEM))
