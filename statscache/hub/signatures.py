"""Signatures: whether a hub that is told to check them can, and whether a message has a good one.

fedmsg refuses every message, and says nothing of the reason, when the libraries that it checks
certificates with are not there, or are not those that it was written for.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import fedmsg.crypto
import fedmsg.crypto.utils
import fedmsg.crypto.x509_ng
from requests.exceptions import RequestException

from statscache.clock import Clock
from statscache.errors import ConfigurationError
from statscache.rejection import SIGNATURE

_CURE = (
    "; without, no message would be let through: install what it needs with "
    "\"pip install 'statscache[signatures]'\", or set validate_signatures to False"
)
_CA = "https://fedoraproject.org/fedmsg/ca.crt"
_CRL = "https://fedoraproject.org/fedmsg/crl.pem"
"""Where fedmsg looks unless its configuration says otherwise."""


def check(config: Mapping[str, Any], clock: Clock) -> None:
    """Check that signatures can be checked, if fedmsg's configuration says so.

    Raises:
        ConfigurationError: signatures are to be checked, and every message would be refused.
    """
    if not config.get("validate_signatures"):
        return
    usual = config.get("crypto_backend") or "x509"
    if "gpg" in (config.get("crypto_validate_backends") or [usual]):
        return  # it needs no library, and has no certificates
    if not fedmsg.crypto.x509_ng._cryptography:
        raise ConfigurationError(
            "validate_signatures is True, and fedmsg can check no signature with what is "
            f"installed ({_installed('pyOpenSSL')}, {_installed('cryptography')}){_CURE}"
        )
    _check_certificates(config, datetime.fromtimestamp(clock.time(), UTC))


def refusal(raw: dict[str, Any], config: Mapping[str, Any]) -> str | None:
    """Why a message is refused because of its signature; None where it is not, or none is needed.

    Args:
        raw: the whole fedmsg dict.
        config: fedmsg's configuration, with fedmsg's defaults.
    """
    if not config.get("validate_signatures"):
        return None
    try:
        if fedmsg.crypto.validate(copy.deepcopy(raw), **config):
            return None
    except Exception as error:
        return f"{SIGNATURE}: {error}"
    return f"{SIGNATURE}: it is refused, as when the message came"


def _installed(distribution: str) -> str:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return f"no {distribution}"


def _check_certificates(config: Mapping[str, Any], now: datetime) -> None:
    authority = config.get("ca_cert_location", _CA)
    revoked = config.get("crl_location", _CRL)
    try:
        certificate, crl = fedmsg.crypto.utils.load_certificates(authority, revoked)
        expired = _expired(certificate, crl, now)
    except (OSError, RequestException, ValueError) as error:
        raise ConfigurationError(
            "validate_signatures is True, and no message would be let through: the certificate of "
            f"the authority ({authority}) and the list of revoked ones ({revoked}) cannot be read: "
            f"{error}; see ca_cert_location and crl_location"
        ) from error
    if expired:
        raise ConfigurationError(
            f"validate_signatures is True, and no message would be let through: {expired} has "
            f"expired; renew {authority} and {revoked} (ca_cert_location and crl_location)"
        )


def _expired(certificate: str, crl: str | None, now: datetime) -> str:
    # They need not be installed.
    from cryptography import x509

    if x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc < now:
        return "the certificate of the authority"
    until = x509.load_pem_x509_crl(crl.encode()).next_update_utc if crl else None
    return "the list of revoked certificates" if until is not None and until < now else ""
