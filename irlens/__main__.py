"""`python -m irlens`."""

from irlens.cli.entry import main

main()
