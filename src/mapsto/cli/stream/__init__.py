"""``mapsto stream``: learn from a table of events as they come, watched live, or answer them with what was learnt."""
