"""`python -m irlens`."""

from irlens.cli import main

main()
