"""Whose certificates are trusted: those of the site, else of the system wherever it keeps them, else the ones that came with scitq."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

VARIABLES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL, CentOS, Rocky
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora 44 and later, RHEL in containers
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/var/lib/ca-certificates/ca-bundle.pem",  # SUSE's newer
    "/etc/ssl/cert.pem",  # Alpine without the package ca-certificates
)


def find_bundle(environment: Mapping[str, str] = os.environ, root: str = "") -> str:
    """The file of certificates to trust. Each variable that a tool of the field knows counts; `root`: where the system's files begin."""
    for variable in VARIABLES:
        if environment.get(variable):
            return environment[variable]
    for place in BUNDLES:
        if Path(root + place).is_file() and Path(root + place).stat().st_size:
            return root + place
    import certifi

    return certifi.where()


def make_context(ca_file: str | None = None) -> ssl.SSLContext:
    """For a client that verifies servers, by `ca_file` alone when it is given.

    OpenSSL itself looks only where the system that it was built on keeps certificates, in SSL_CERT_FILE and SSL_CERT_DIR. Raises
    FileNotFoundError or ssl.SSLError for a file that is not there or holds none.
    """
    return ssl.create_default_context(cafile=ca_file or find_bundle(), capath=None if ca_file else os.environ.get("SSL_CERT_DIR") or None)
