"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from tests.support.skips import Plugin

# On a busy machine an example takes as long as it takes: that says nothing of the code.
settings.register_profile("sifline", deadline=None)
settings.load_profile("sifline")

# Run in the background or under nohup, these signals are ignored, and so would be by all that
# tests start and then interrupt.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number,
            signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL,
        )


def pytest_configure(config: pytest.Config) -> None:
    """Judge skips, once for all workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Plugin())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one worker have all tests of a module, which may share fixtures; long ones begin."""
    for item in items:
        if not item.get_closest_marker("spread") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
