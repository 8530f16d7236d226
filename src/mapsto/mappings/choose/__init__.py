"""From several branches of a fork to one of them, by what a report says."""
