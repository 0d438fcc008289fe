"""What the base promises; every image built on it promises the same."""

from __future__ import annotations

import pytest

from sifline.imagetests import Container, certificates, run_as_root


def os_release(container: Container) -> dict[str, str]:
    text = container.run(["cat", "/etc/os-release"]).stdout
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value.strip('"') for key, _, value in pairs}


def test_it_is_debian_bookworm(container: Container) -> None:
    found = os_release(container)
    assert (found["ID"], found["VERSION_ID"], found["VERSION_CODENAME"]) == (
        "debian",
        "12",
        "bookworm",
    )


def test_no_package_is_half_installed(container: Container) -> None:
    audit = container.run(["dpkg", "--audit"])
    assert (audit.returncode, audit.stdout) == (0, "")


def test_packages_come_from_bookworm_alone(container: Container) -> None:
    sources = container.run(
        [
            *("grep", "--no-filename", "--recursive", "^deb "),
            *("/etc/apt/sources.list", "/etc/apt/sources.list.d"),
        ]
    ).stdout
    suites = {line.split()[2] for line in sources.splitlines()}
    assert suites == {"bookworm", "bookworm-updates", "bookworm-security"}


def test_it_works_for_a_user_it_does_not_know(container: Container) -> None:
    found = container.run(["id", "--user"], user="12345:12345")
    assert (found.returncode, found.stdout.strip()) == (0, "12345")


def test_its_file_system_is_read_only(container: Container) -> None:
    found = container.run(["touch", "/usr/here"])
    assert found.returncode != 0
    assert "Read-only file system" in found.stderr


def test_the_distributions_certificates_are_there(container: Container) -> None:
    assert len(certificates(container, "/etc/ssl/certs/ca-certificates.crt")) > 100


def test_the_trust_store_holds_the_distributions_certificates_alone(container: Container) -> None:
    trusted = certificates(container, "/etc/ssl", "/usr/local/share/ca-certificates")
    assert trusted <= certificates(container, "/usr/share/ca-certificates")


def test_no_certificate_of_the_build_host_leaked(
    container: Container, private_certificates: frozenset[str]
) -> None:
    found = certificates(container, "/")
    assert found >= certificates(container, "/etc/ssl/certs") > frozenset()
    assert private_certificates & found == frozenset()


def test_no_build_secret_is_left(container: Container) -> None:
    # The folder itself shows that the search was made.
    found = run_as_root(container, ["find", "/run", "-path", "/run", "-o", "-path", "*/secrets/*"])
    assert found.stdout == "/run\n", found.stderr


def test_apt_was_left_without_the_settings_of_the_build(container: Container) -> None:
    settings = container.run(["apt-config", "dump", "Acquire::https::CAInfo"])
    assert (settings.returncode, settings.stdout) == (0, "")


@pytest.mark.style
def test_apt_left_no_cache(container: Container) -> None:
    found = container.run(
        [
            "find",
            "/var/cache/apt",
            *("-path", "/var/cache/apt"),
            *("-o", "-type", "f", "-name", "*.bin"),
            *("-o", "-type", "f", "-name", "*.deb"),
        ]
    )
    assert found.stdout == "/var/cache/apt\n", found.stderr


@pytest.mark.style
def test_apt_left_no_lists(container: Container) -> None:
    # With the folder above, which shows that the search was made.
    found = run_as_root(container, ["find", "/var/lib/apt", "-printf", "%y %s %p\\n"])
    assert found.stdout.startswith("d "), found.stderr
    entries = [line.split(" ", 2) for line in found.stdout.splitlines()]
    left = sum(
        int(size)
        for kind, size, path in entries
        if kind == "f" and path.startswith("/var/lib/apt/lists/")
    )
    assert not left, (
        f"/var/lib/apt/lists holds {left / 1e6:.0f} MB of package lists; end the RUN that calls"
        " apt-get with: && rm -rf /var/lib/apt/lists/*"
    )
