"""`python -m palavra`."""

from palavra.cli import main

main()
