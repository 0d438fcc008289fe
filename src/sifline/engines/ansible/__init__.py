"""Ansible: the inventory of a cluster, playbooks on it, and what they did."""

from sifline.engines.ansible.events import (
    EVENTS_VARIABLE,
    FileDiff,
    HostEvent,
    JobsAffected,
    NoHosts,
    Note,
    Outcome,
    Run,
    Stats,
    TaskStarted,
    parse,
)
from sifline.engines.ansible.inventories import (
    access_variables,
    cluster_variables,
    hosts,
    inventory,
)
from sifline.engines.ansible.playbooks import PROGRAM, playbook, program

__all__ = [
    "EVENTS_VARIABLE",
    "PROGRAM",
    "FileDiff",
    "HostEvent",
    "JobsAffected",
    "NoHosts",
    "Note",
    "Outcome",
    "Run",
    "Stats",
    "TaskStarted",
    "access_variables",
    "cluster_variables",
    "hosts",
    "inventory",
    "parse",
    "playbook",
    "program",
]
