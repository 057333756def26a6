"""Imported before all else by a command, whose other imports take seconds: from here on a signal ends it quietly."""

import os

from microbudget_rl.conf.signals import end_by_signal, handle_signals

handle_signals(end_by_signal)
# Ray reads it when it is imported. Its handler in C++ would take SIGTERM from ours and print a stack.
os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
