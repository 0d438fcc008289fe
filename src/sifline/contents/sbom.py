"""Writes a software bill of materials in CycloneDX 1.6; equal contents give equal bytes.

Format: https://cyclonedx.org/docs/1.6/json/; package names: the types ``deb`` and ``pypi`` of
https://github.com/package-url/purl-spec.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from sifline.contents.comparison import Contents
from sifline.errors import StepFailed
from sifline.formats.packages import DEB, Distribution, Package

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

ENDING = ".cdx.json"
_PREFIX = "sifline:"
_SHA256 = "sha256:"


def document(contents: Contents) -> bytes:
    """Return the bill of ``contents``, checked against the format's own schema.

    :raises StepFailed: if it does not match the schema.
    """
    from cyclonedx.output.json import JsonV1Dot6

    bom = _bom(contents)
    # The library draws a random number; equal contents must give equal bills.
    raw = json.loads(JsonV1Dot6(bom).output_as_string())
    del raw["serialNumber"]
    complete = contents.found.complete
    if not complete:
        # The library has no compositions of its own.
        aggregate = "unknown" if complete is None else "incomplete"
        subject = raw["metadata"]["component"]["bom-ref"]
        raw["compositions"] = [{"aggregate": aggregate, "assemblies": [subject]}]
    text = json.dumps(raw, sort_keys=True)
    raw["serialNumber"] = uuid5(NAMESPACE_URL, text).urn
    made = json.dumps(raw, sort_keys=True, indent=2) + "\n"
    check(made)
    return made.encode("ascii")


def check(text: str) -> None:
    """Check a bill of materials against the strict schema of CycloneDX.

    :raises StepFailed: if ``text`` is not CycloneDX 1.6.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from jsonschema.validators import Draft7Validator

    # Without a checker of that name, the validator would accept any text.
    Draft7Validator.FORMAT_CHECKER.checks("iri-reference")(is_iri_reference)
    try:
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    except ValueError as broken:
        raise StepFailed(f"the bill of materials is no JSON: {broken}; make it again") from None
    if error is not None:
        raise StepFailed(
            "the bill of materials is no valid CycloneDX 1.6; report this, with the image",
            details=str(error)[:2000],
        )


def is_iri_reference(value: object) -> bool:
    """Return whether ``value`` is an IRI reference, by the URI that it maps to (RFC 3987, 3.1).

    Values that are not text are accepted.
    """
    from rfc3986_validator import validate_rfc3986

    if not isinstance(value, str):
        return True
    ascii_alone = quote(value, safe=string.printable)
    return bool(validate_rfc3986(ascii_alone, rule="URI_reference"))


def purl(package: Package, system: Distribution) -> PackageURL:
    """Return the package URL (purl) of a package, the name that vulnerability scanners use."""
    from packageurl import PackageURL

    if package.kind != DEB:
        return PackageURL(type="pypi", name=package.name, version=package.version)
    known = "-".join(filter(None, [system.id, system.version]))
    qualifiers = {
        "arch": package.architecture,
        "distro": known if system.id else "",
        # Debian's security tracker uses this name.
        "upstream": package.source,
    }
    return PackageURL(
        type="deb",
        namespace=system.id or "debian",
        name=package.name,
        version=package.version,
        qualifiers={key: value for key, value in qualifiers.items() if value},
    )


def _bom(contents: Contents) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData

    subject = _subject(contents)
    components = [*_system(contents.found.distribution), *_components(contents)]
    bom = Bom(
        components=components,
        metadata=BomMetaData(
            component=subject,
            timestamp=datetime.fromtimestamp(contents.created, timezone.utc),
        ),
    )
    bom.metadata.tools.components.add(_tool())
    bom.register_dependency(subject, components)
    return bom


def _subject(contents: Contents) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    # An image's id is the digest of its configuration, not of the image itself.
    digest = contents.version.removeprefix(_SHA256) if contents.kind == "sif" else ""
    return Component(
        type=ComponentType.CONTAINER,
        name=contents.name,
        version=contents.version,
        bom_ref=f"{contents.kind}:{contents.version}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else [],
        properties=[
            Property(name=f"{_PREFIX}{key}", value=value)
            for key, value in _properties(contents).items()
            if value
        ],
    )


def _properties(contents: Contents) -> Mapping[str, str]:
    return {
        "kind": contents.kind,
        "size": str(contents.size),
        "architecture": contents.architecture,
        "image-digest": contents.image_digest,
        "fingerprint": contents.fingerprint,
        "commit": contents.commit,
        # The bill must say that something may be missing.
        "not-understood": "\n".join(contents.found.broken),
        "unread-databases": "\n".join(map(str, contents.found.unread)),
    }


def _system(distribution: Distribution) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType

    if distribution.id:
        yield Component(
            type=ComponentType.OPERATING_SYSTEM,
            name=distribution.id,
            version=distribution.version or None,
            description=distribution.name or None,
            bom_ref=f"os:{distribution.id}@{distribution.version}",
        )


def _components(contents: Contents) -> Iterator[Component]:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence

    licenses = LicenseFactory()
    for package in contents.found.packages:
        name = purl(package, contents.found.distribution)
        places = [Occurrence(location=f"/{package.place}")] if package.place else []
        yield Component(
            type=ComponentType.LIBRARY,
            name=package.name,
            version=package.version,
            purl=name,
            # One package in two places is two components.
            bom_ref=f"{name}#{package.place}" if package.place else str(name),
            licenses=[licenses.make_from_string(package.license)] if package.license else [],
            evidence=ComponentEvidence(occurrences=places) if places else None,
        )


def _tool() -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.APPLICATION,
        name="sifline",
        version=version("sifline"),
        bom_ref="tool:sifline",
    )
