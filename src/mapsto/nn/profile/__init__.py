"""What a network costs: counted, timed, and whether a budget was reached."""
