"""The inventory, the events, and what is made of a run that went wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from sifline.engines import ansible
from sifline.engines.ansible import FileDiff, HostEvent, NoHosts, Outcome, Stats, TaskStarted
from sifline.errors import MissingError, StepFailed
from sifline.machine.context import Context
from sifline.machine.process import Result
from sifline.model import Cluster, Node, Partition, Role, SshAccess, Workspace
from sifline.nodeside.registry import FOLDERS
from sifline.stages.provision import playbooks, provision, ssh_reason
from sifline.tasks.cluster import STAGES
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer
from tests.support.remote import begun

ROOT = Path(__file__).parents[2]

TASK = {"event": "task", "name": "munge : Run munge"}


def stats(*lost: str) -> dict[str, Any]:
    hosts = {
        name: {"ok": ok, "changed": changed, "failures": int(name in lost), "unreachable": 0}
        for name, ok, changed in (("controller", 9, 1), ("compute-01", 8, 2), ("compute-02", 0, 0))
    }
    return {"event": "stats", "hosts": hosts}


STATS = stats()


def host(outcome: str, message: str = "", name: str = "compute-01") -> dict[str, Any]:
    return {
        "event": "host",
        "host": name,
        "task": "slurm-compute : Run slurmd",
        "outcome": outcome,
        "message": message,
    }


def cluster(**changes: Any) -> Cluster:
    made = Cluster(
        name="tiny",
        nodes=(
            Node(name="controller", role=Role.CONTROLLER, address="10.0.0.1"),
            Node(
                name="compute-01",
                role=Role.COMPUTE,
                address="10.0.0.2",
                cpus=8,
                memory_mb=16000,
                gpus=2,
                gpu_type="h100",
            ),
            Node(name="compute-02", role=Role.COMPUTE),
        ),
        ssh=SshAccess(
            user="admin",
            port=2222,
            identity_file=Path("/keys/id one"),
            known_hosts=Path("/keys/known hosts"),
        ),
        partitions=(Partition(name="gpu", default=True, max_time="1:00:00"),),
        source=Path("clusters/tiny.yaml"),
    )
    return dataclasses.replace(made, **changes)


class Playbook(RecordingRunner):
    """Plays ansible-playbook: writes ``events`` where it is told to, then ends."""

    def __init__(self, *events: dict[str, Any], ended: Result) -> None:
        super().__init__({("ssh",): begun("held\n")})
        self.inventory = ""
        self._written = events
        self._ended = ended

    def run(self, argv: Any, **given: Any) -> Result:
        path = Path(given["env"][ansible.EVENTS_VARIABLE])
        self.inventory = Path(argv[argv.index("--inventory") + 1]).read_text()
        self.argv = tuple(argv)
        self.input = given.get("input")
        for event in self._written:
            with path.open("a") as file:
                file.write(json.dumps(event) + "\n")
            given["on_line"]("whatever it prints")
        return self._ended


Made = tuple[Playbook, Context, list[str]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Made]:
    (tmp_path / "ansible").mkdir()
    (tmp_path / "ansible" / "site.yml").touch()

    def make(*events: dict[str, Any], ended: Result | None = None) -> Made:
        told: list[str] = []
        runner = Playbook(*events, ended=ended or answer())

        def tell(text: str) -> None:
            told.append(text)

        here = context_of(tmp_path, runner, progress=tell)
        return runner, here, told

    return make


def failure(context: Context) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        provision(cluster(), context)
    return caught.value


# The inventory


def test_nodes_are_in_the_group_of_their_role() -> None:
    groups = json.loads(ansible.inventory(cluster()))["all"]["children"]
    hosts = {name: list(group["hosts"]) for name, group in groups.items()}
    assert hosts == {"controller": ["controller"], "compute": ["compute-01", "compute-02"]}


def test_a_compute_node_brings_what_slurm_may_hand_out() -> None:
    groups = json.loads(ansible.inventory(cluster()))["all"]["children"]
    assert groups["compute"]["hosts"]["compute-01"] == {
        "ansible_host": "10.0.0.2",
        "slurm_common_cpus": 8,
        "slurm_common_memory_mb": 16000,
        "slurm_common_gpus": 2,
        "slurm_common_gpu_type": "h100",
    }


def test_a_node_without_address_is_reached_by_its_name() -> None:
    groups = json.loads(ansible.inventory(cluster()))["all"]["children"]
    assert groups["compute"]["hosts"]["compute-02"]["ansible_host"] == "compute-02"


def test_host_keys_are_checked_against_the_clusters_own_file() -> None:
    variables = json.loads(ansible.inventory(cluster()))["all"]["vars"]
    options = shlex.split(variables["ansible_ssh_common_args"])
    assert "StrictHostKeyChecking=yes" in options
    assert 'UserKnownHostsFile="/keys/known hosts"' in options


def test_host_keys_are_checked_against_the_users_file_where_the_cluster_has_none() -> None:
    options = ansible.access_variables(cluster(ssh=SshAccess()))["ansible_ssh_common_args"]
    assert "StrictHostKeyChecking=yes" in options
    assert "UserKnownHostsFile" not in options


@pytest.mark.parametrize(("user", "become"), [("root", False), ("admin", True)])
def test_only_an_ordinary_user_becomes_root(user: str, become: bool) -> None:
    assert ansible.access_variables(cluster(ssh=SshAccess(user=user)))["ansible_become"] is become


def test_the_role_makes_the_folders_that_the_registry_asks_for() -> None:
    variables = json.loads(ansible.inventory(cluster()))["all"]["vars"]
    assert variables["container_registry_folders"] == list(FOLDERS)


def test_the_role_has_no_list_of_folders_of_its_own() -> None:
    """It asks for them, and its README, for inventories by hand, names those that there are."""
    role = ROOT / "ansible" / "roles" / "container-registry"
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text("utf-8"))
    asked = specs["argument_specs"]["main"]["options"]["container_registry_folders"]
    # The tasks ask for it: a node image is built without.
    assert "default" not in asked
    tasks = yaml.safe_load((role / "tasks" / "folders.yml").read_text("utf-8"))
    assert tasks[0]["ansible.builtin.assert"]["that"] == "container_registry_folders is defined"
    assert "container_registry_folders" not in yaml.safe_load(
        (role / "defaults" / "main.yml").read_text("utf-8")
    )
    (line,) = re.findall(
        r"(?m)^ +(container_registry_folders:.*)$", (role / "README.md").read_text()
    )
    assert yaml.safe_load(line) == {"container_registry_folders": list(FOLDERS)}


def test_variables_of_the_cluster_file_win() -> None:
    changed = cluster(variables=(("slurm_common_mpi_default", "none"),))
    assert ansible.cluster_variables(changed)["slurm_common_mpi_default"] == "none"


def test_partitions_reach_the_roles() -> None:
    assert ansible.cluster_variables(cluster())["slurm_common_partitions"] == [
        {"name": "gpu", "default": True, "max_time": "1:00:00"}
    ]


# Events


def test_events_are_read() -> None:
    lines = [json.dumps(event) for event in (TASK, host("failed", "no"), {"event": "nohosts"})]
    assert list(ansible.parse(lines)) == [
        TaskStarted(name="munge : Run munge"),
        HostEvent(
            host="compute-01",
            task="slurm-compute : Run slurmd",
            outcome=Outcome.FAILED,
            message="no",
        ),
        NoHosts(),
    ]


def test_counts_are_summed_over_the_hosts() -> None:
    assert list(ansible.parse([json.dumps(STATS)])) == [Stats(ok=17, changed=3)]


def test_events_of_a_later_version_are_passed_over() -> None:
    assert list(ansible.parse(['{"event": "new"}'])) == []


# A run


def test_a_run_tells_its_tasks_and_returns_its_counts(play: Callable[..., Made]) -> None:
    _, context, told = play(TASK, host("changed"), STATS)
    done = provision(cluster(), context)
    assert (done.changed, done.ok) == (3, 17)
    assert told == ["munge : Run munge", "compute-01: slurm-compute : Run slurmd: changed"]
    assert done.changes == (("Run slurmd", ("compute-01",)),)


def test_check_reaches_ansible(play: Callable[..., Made]) -> None:
    runner, context, _ = play(STATS)
    provision(cluster(), context, check=True)
    assert "--check" in runner.argv


def diff(text: str, name: str) -> dict[str, Any]:
    return {"event": "diff", "host": name, "text": text}


@pytest.mark.parametrize("check", [True, False])
def test_a_difference_is_told_once_with_all_its_hosts(
    play: Callable[..., Made], check: bool
) -> None:
    runner, context, _ = play(
        diff("-a\n+b\n", "n1"), diff("-c\n+d\n", "n1"), diff("-a\n+b\n", "n2")
    )
    done = provision(cluster(), context, check=check, diff=True)

    assert "--diff" in runner.argv
    assert done.diffs == ((("n1", "n2"), "-a\n+b"), (("n1",), "-c\n+d"))
    assert provision(cluster(), context, check=check).diffs == ()


def test_one_stage_is_the_plays_with_its_tag(play: Callable[..., Made]) -> None:
    runner, context, _ = play(STATS)
    provision(cluster(), context, stage="registry")
    assert tuple(runner.argv[-2:]) == ("--tags", "registry")


def test_each_stage_has_a_play_and_each_play_is_of_a_stage() -> None:
    plays = yaml.safe_load((ROOT / "ansible" / "site.yml").read_text())
    assert all(play["tags"] for play in plays)
    assert {tag for play in plays for tag in play["tags"]} == set(STAGES)


@pytest.mark.parametrize("adopt", [True, False])
def test_files_of_others_are_replaced_only_where_that_is_asked_for(
    play: Callable[..., Made], adopt: bool
) -> None:
    runner, context, _ = play(STATS)
    provision(cluster(), context, adopt=adopt)
    assert ("adopt=true" in runner.argv) is adopt


def test_the_files_that_were_replaced_are_told_with_their_host(play: Callable[..., Made]) -> None:
    _, context, _ = play(host("changed", "/etc/a.1~, /etc/b.1~"), host("changed"), STATS)
    assert provision(cluster(), context).kept == ("compute-01:/etc/a.1~, /etc/b.1~",)


def test_a_failure_says_how_to_run_it_again(play: Callable[..., Made]) -> None:
    _, context, _ = play(host("failed", "no"), stats("compute-01"))
    assert failure(context).message.endswith("then run it again: invoke provision --cluster tiny")
    with pytest.raises(StepFailed, match="invoke --dry provision --cluster tiny --stage munge"):
        provision(cluster(), context, check=True, stage="munge")
    with pytest.raises(StepFailed, match=r"--cluster tiny --adopt --interrupt-jobs$"):
        provision(cluster(), context, adopt=True, interrupt_jobs=True)


def test_the_inventory_is_gone_after_the_run(play: Callable[..., Made]) -> None:
    runner, context, _ = play(STATS)
    provision(cluster(), context)
    assert json.loads(runner.inventory)["all"]["vars"]["ansible_user"] == "admin"
    assert not Path(runner.argv[runner.argv.index("--inventory") + 1]).exists()


def test_a_failed_task_is_told_with_host_task_and_message(play: Callable[..., Made]) -> None:
    _, context, _ = play(
        TASK,
        host("failed", "Unable to start service slurmd\nmore"),
        stats("compute-01"),
        ended=answer(returncode=2),
    )
    error = failure(context)
    assert error.message.startswith(
        "provision tiny: compute-01: task 'slurm-compute : Run slurmd' failed: "
        "Unable to start service slurmd; look there: ssh "
    )
    assert str(context.workspace.logs / "tiny.provision.log") in error.message
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Task failed: Missing sudo password",
            "sudo asks admin for a password; add --ask-become-pass;",
        ),
        (
            "sudo: a password is required",
            "sudo asks admin for a password; add --ask-become-pass;",
        ),
        (
            "Task failed: Incorrect sudo password",
            "sudo refused admin: Task failed: Incorrect sudo password; try: ssh ",
        ),
    ],
)
def test_a_node_that_runs_nothing_is_told_as_a_deployment_tells_it(
    play: Callable[..., Made], said: str, told: str
) -> None:
    _, context, _ = play(host("failed", said), stats("compute-01"), ended=answer(returncode=2))
    message = failure(context).message
    assert re.match(rf"provision tiny: compute-01 \(.+?\): {re.escape(told)}", message), message


def test_a_module_that_says_nothing_was_killed_or_never_run(play: Callable[..., Made]) -> None:
    said = "Task failed: Module result deserialization failed."
    _, context, _ = play(host("failed", said), stats("compute-01"), ended=answer(returncode=2))
    told = "deserialization failed: Python was killed there, or the login shell runs nothing; look"
    assert told in failure(context).message


def test_a_password_reaches_ansible_and_no_file(play: Callable[..., Made]) -> None:
    runner, context, _ = play(STATS)
    word = "s3cret"
    access = dataclasses.replace(cluster().ssh, become_password=word)
    provision(cluster(ssh=access), context)
    assert ("--ask-become-pass" in runner.argv, runner.input) == (True, f"{word}\n")
    assert word not in f"{runner.inventory} {runner.argv}"


def test_without_a_password_ansible_is_fed_nothing(play: Callable[..., Made]) -> None:
    runner, context, _ = play(STATS)
    provision(cluster(), context)
    assert ("--ask-become-pass" in runner.argv, runner.input) == (False, None)


def test_an_unreachable_host_is_told_by_name(play: Callable[..., Made]) -> None:
    _, context, _ = play(
        host("unreachable", "Connection refused"), stats("compute-01"), ended=answer(returncode=4)
    )
    assert "compute-01 does not answer: Connection refused; try: ssh" in failure(context).message


def test_further_hosts_with_faults_are_named_once(play: Callable[..., Made]) -> None:
    _, context, _ = play(
        host("failed", "no"),
        host("failed", "no", name="compute-02"),
        host("unreachable", "no", name="compute-02"),
        stats("compute-01", "compute-02"),
        ended=answer(returncode=6),
    )
    assert failure(context).message.count("compute-02") == 1


def test_the_task_that_a_host_ended_with_is_told(play: Callable[..., Made]) -> None:
    _, context, _ = play(
        host("failed", "Unable to start"),
        host("failed", "fatal: no such key"),
        stats("compute-01"),
        ended=answer(returncode=2),
    )
    assert "fatal: no such key" in failure(context).message


def test_a_failure_that_was_made_good_is_none(play: Callable[..., Made]) -> None:
    _, context, _ = play(host("failed", "not at first"), STATS)
    assert provision(cluster(), context).changed == 3


def test_a_play_without_hosts_fails_though_ansible_ends_well(play: Callable[..., Made]) -> None:
    _, context, _ = play({"event": "nohosts"}, STATS)
    assert "no host" in failure(context).message


def test_an_ansible_that_does_not_start_is_quoted(play: Callable[..., Made]) -> None:
    ended = answer("x", stderr="ERROR! 'taks' is not a valid attribute\nhint", returncode=4)
    _, context, _ = play(ended=ended)
    error = failure(context)
    assert "status 4: ERROR! 'taks' is not a valid attribute" in error.message
    assert "hint" in error.details


def test_no_playbooks_anywhere_is_a_missing_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sifline.stages.provision.resources.files", lambda _: tmp_path / "lib")
    with pytest.raises(MissingError, match=r"no site\.yml"):
        playbooks(Workspace(root=tmp_path))


def test_installed_playbooks_serve_a_workspace_without_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "lib" / "_share" / "ansible"
    installed.mkdir(parents=True)
    (installed / "site.yml").touch()
    monkeypatch.setattr("sifline.stages.provision.resources.files", lambda _: tmp_path / "lib")
    assert playbooks(Workspace(root=tmp_path)) == installed


# The callback


@pytest.fixture
def callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = ROOT / "ansible" / "callback_plugins" / "sifline_events.py"
    spec = importlib.util.spec_from_file_location("sifline_events", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("SIFLINE_ANSIBLE_EVENTS", str(tmp_path / "events"))
    return module.CallbackModule()


def result(**values: Any) -> Any:
    return SimpleNamespace(
        _host=SimpleNamespace(get_name=lambda: "n1"),
        _task=SimpleNamespace(get_name=lambda: "t"),
        _result=values,
    )


def written(tmp_path: Path) -> list[HostEvent]:
    lines = (tmp_path / "events").read_text().splitlines()
    return [event for event in ansible.parse(lines) if isinstance(event, HostEvent)]


def test_a_hidden_result_is_written_without_its_output(callback: Any, tmp_path: Path) -> None:
    callback.v2_runner_on_failed(result(censored="hidden", msg="the key is 42"))
    (event,) = written(tmp_path)
    assert event.outcome is Outcome.FAILED
    assert "42" not in event.message


def diffs(tmp_path: Path) -> list[str]:
    path = tmp_path / "events"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event.text for event in ansible.parse(lines) if isinstance(event, FileDiff)]


CHANGE = {
    "before": "a\nb\n",
    "after": "a\nc\n",
    "before_header": "/etc/x",
    "after_header": "/etc/x",
}


def test_a_difference_names_file_and_line(callback: Any, tmp_path: Path) -> None:
    items = [{"changed": True, "diff": CHANGE}, {"changed": False, "diff": CHANGE}]
    callback.v2_on_file_diff(result(results=items))
    (text,) = diffs(tmp_path)

    assert "--- before: /etc/x" in text
    assert "@@ -1,2 +1,2 @@\n a\n-b\n+c" in text


def test_a_difference_of_a_secret_is_not_written(callback: Any, tmp_path: Path) -> None:
    hidden = {"changed": True, "diff": CHANGE, "_ansible_no_log": True}
    callback.v2_on_file_diff(result(**hidden))
    callback.v2_on_file_diff(result(results=[hidden]))
    callback.v2_on_file_diff(result(censored="hidden", changed=True, diff=CHANGE))
    shown = {"changed": True, "diff": CHANGE}
    callback.v2_on_file_diff(result(censored="hidden", results=[shown]))

    assert diffs(tmp_path) == []


KEY_PLAY = """
- hosts: all
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
    munge_key_file: %(folder)s/{{ inventory_hostname }}.key
    munge_record: %(folder)s/{{ inventory_hostname }}.record
    munge_key_host: controller
    munge_key_digest: ["x"]
    munge_adopt: true
    munge_own_digest: []
    munge_foreign: ["{{ munge_key_file }}"]
  handlers:
    - name: Restart munge
      ansible.builtin.meta: noop
  tasks:
    - name: Take the tasks of the role
      ansible.builtin.include_tasks: key.yml
    - name: Change a file that is no secret
      ansible.builtin.copy:
        content: "other\n"
        dest: %(folder)s/plain
        mode: "0644"
"""


def test_ansible_shows_changes_of_files_and_never_the_munge_key(tmp_path: Path) -> None:
    """The role's own tasks, in check mode, by Ansible itself."""
    for name in ("controller", "node"):
        (tmp_path / f"{name}.key").write_text(f"this-is-the-key of {name}\n")
        (tmp_path / f"{name}.key").chmod(0o600)
    (tmp_path / "plain").write_text("plain\n")
    tasks = yaml.safe_load((ROOT / "ansible/roles/munge/tasks/key.yml").read_text())
    for task in tasks:  # this machine need not have these users
        task.get("ansible.builtin.copy", {}).pop("owner", None)
        task.get("ansible.builtin.copy", {}).pop("group", None)
    (tmp_path / "key.yml").write_text(yaml.safe_dump(tasks, sort_keys=False))
    (tmp_path / "play.yml").write_text(KEY_PLAY % {"folder": tmp_path})
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "--check", "--diff", "--inventory", "controller,node", "play.yml"],
        cwd=tmp_path,
        env={
            **os.environ,
            ansible.EVENTS_VARIABLE: str(tmp_path / "events"),
            "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    told = diffs(tmp_path)

    assert ["-plain\n+other" in text for text in told] == [True, True], done
    assert "this-is-the-key" not in (tmp_path / "events").read_text() + done.stdout


def test_a_failed_loop_is_told_by_its_first_failed_item(callback: Any, tmp_path: Path) -> None:
    items = [{"msg": "fine"}, {"failed": True, "msg": "disk full"}]
    callback.v2_runner_on_failed(result(msg="One or more items failed", results=items))
    assert [event.message for event in written(tmp_path)] == ["disk full"]


def test_only_changes_are_written_of_what_went_well(callback: Any, tmp_path: Path) -> None:
    callback.v2_runner_on_ok(result(changed=False))
    callback.v2_runner_on_ok(result(changed=True))
    assert [event.outcome for event in written(tmp_path)] == [Outcome.CHANGED]


def test_a_change_tells_which_files_it_kept(callback: Any, tmp_path: Path) -> None:
    items = [
        {"backup_file": "/etc/slurm/gres.conf.1~", "dest": "/etc/slurm/gres.conf"},
        {"dest": "/etc/slurm/mpi.conf"},
    ]
    callback.v2_runner_on_ok(result(changed=True, results=items))
    callback.v2_runner_on_ok(result(changed=True, dest="/etc/munge/munge.key.1~"))
    assert [event.message for event in written(tmp_path)] == [
        "/etc/slurm/gres.conf.1~",
        "/etc/munge/munge.key.1~",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Failed to connect to the host via ssh: @@@@@@@@@@\n@  WARNING: CHANGED  @\n"
            "Host key verification failed.\n",
            "Host key verification failed.",
        ),
        (
            "Failed to connect to the host via ssh: ssh: connect to host x: Connection refused",
            "ssh: connect to host x: Connection refused",
        ),
        ("", "no reason given"),
    ],
    ids=["behind a banner", "on the first line", "none"],
)
def test_the_reason_of_ssh_is_found(text: str, expected: str) -> None:
    assert ssh_reason(text) == expected
