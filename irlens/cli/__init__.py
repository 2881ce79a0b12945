"""The command line: options from settings, calls, and what is printed."""
