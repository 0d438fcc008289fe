"""The READMEs of the roles list the variables that the roles have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sifline.config.role_tables import page, table
from sifline.formats import slurm_conf

ROLES = Path(__file__).parents[2] / "ansible" / "roles"
NAMES = sorted(path.name for path in ROLES.iterdir())
AGAIN = "python -m sifline.config.role_tables ansible/roles"


def options(role: str) -> dict[str, dict[str, object]]:
    specs = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())
    return dict(specs["argument_specs"]["main"].get("options", {}))


@pytest.mark.parametrize("role", NAMES)
def test_each_readme_has_the_table_of_its_role(role: str) -> None:
    text = (ROLES / role / "README.md").read_text()
    assert table(ROLES / role) in text, AGAIN
    assert page(text, ROLES / role) == text, AGAIN


@pytest.mark.parametrize("role", NAMES)
def test_each_default_is_a_declared_variable(role: str) -> None:
    path = ROLES / role / "defaults" / "main.yml"
    defaults = set(yaml.safe_load(path.read_text())) if path.exists() else set()
    assert defaults <= set(options(role))


def test_a_row_says_type_default_and_meaning(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "argument_specs.yml").write_text(
        "argument_specs: {main: {options: {"
        " a: {description: 'x|y', type: list, elements: dict, default: [b, c],"
        "  options: {d: {description: z, type: bool, required: true}}},"
        " e: {description: q, type: bool, default: '{{ packer_build | default(false) }}'}}}}\n"
    )
    assert table(tmp_path).splitlines()[2:] == [
        "| `a` | list of dict | `b`, `c` | x&#124;y |",
        "| `a[].d` | bool | required | z |",
        "| `e` | bool | `packer_build`, else false | q |",
    ]


def test_each_key_of_cgroup_conf_is_a_variable() -> None:
    text = (ROLES / "slurm-common" / "vars" / "main.yml").read_text()
    keys = yaml.safe_load(text)["slurm_common_cgroup_keys"]
    known = {
        key.name
        for key in slurm_conf.keys("cgroup.conf")
        if key.known("24.11") and not (key.obsolete or key.ignored or key.fatal)
    }
    # Decided by the node itself; the last two have done nothing since 19.05.
    decided = {"CgroupPlugin", "CgroupMountpoint"}
    assert known - set(keys) - decided == {"MemoryLimitEnforcement", "MemoryLimitThreshold"}
    assert set(keys) <= known
