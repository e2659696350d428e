"""`python -m mdevfs`: the command, for who knows the interpreter and not where its scripts are."""

from mdevfs.cli.main import main

main()
