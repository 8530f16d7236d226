"""Where events come from: files that may grow, data sets, and generators whose rule changes at known places."""
