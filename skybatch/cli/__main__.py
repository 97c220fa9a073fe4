"""`python -m skybatch.cli`: the `skybatch` command."""

from skybatch.cli.main import main

main()
