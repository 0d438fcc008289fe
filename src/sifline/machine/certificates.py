"""The CA certificates that this machine trusts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# Their place in Debian and in the Red Hat family.
BUNDLES = ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt")


def bundle(environment: Mapping[str, str], root: Path = Path("/")) -> Path | None:
    """Return the path of the CA bundle that this machine trusts; None if there is none.

    :param root: the folder of the machine's root file system.
    """
    named = environment.get("SSL_CERT_FILE")
    paths = (*((Path(named),) if named else ()), *(root / path for path in BUNDLES))
    return next((path for path in paths if path.is_file()), None)
