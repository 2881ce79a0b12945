"""One file per command, named as it is typed: settings in, a folder with its tables out.

Each is a function of one frozen settings object. It checks everything that it can before its folder is made.
"""
