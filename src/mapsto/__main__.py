"""``python -m mapsto`` is the command line."""

from mapsto.cli.main import main

main()
