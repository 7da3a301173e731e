"""`python -m fedbus`: the command line."""

from fedbus.cli.app import main

main()
