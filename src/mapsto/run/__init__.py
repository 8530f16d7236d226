"""Running a recipe over a store: the executor, the context of a step, what it leaves."""
