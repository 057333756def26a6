"""Imported before all else by a command, whose other imports take seconds: from here on a signal ends it quietly."""

from conf.signals import end_by_signal, handle_signals

handle_signals(end_by_signal)
