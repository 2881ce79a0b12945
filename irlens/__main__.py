"""`python -m irlens`."""

from irlens.cli.app import main

main()
