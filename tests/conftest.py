"""What holds for all tests."""

from __future__ import annotations

import signal

# Run in the background or under nohup, these signals are ignored, and so would be by all that
# tests start and then interrupt.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number,
            signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL,
        )
