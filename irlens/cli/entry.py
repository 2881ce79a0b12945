"""The entry point of the program: signals are heard before anything else is imported, and to the interpreter's end."""

import sys

from irlens.base import interrupts


def main() -> None:
    """`irlens`. An interrupt, whenever it comes, is one line on standard error and the exit code 128 + its signal."""
    try:
        interrupts.hear()
        from irlens.cli.app import main as command

        command()
    except (interrupts.Interrupted, KeyboardInterrupt) as error:
        code = interrupts.ended(error)
        print(f"irlens: {interrupts.LINE}", file=sys.stderr)
        sys.exit(code)
    finally:
        interrupts.deafen()
