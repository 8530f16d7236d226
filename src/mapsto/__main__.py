"""``python -m mapsto`` is the command line."""

from mapsto.cli import main

main()
