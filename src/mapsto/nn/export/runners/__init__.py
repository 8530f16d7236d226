"""Parts of the runner that a package carries: a program that needs neither mapsto nor mapsto-runtime.

What stands below a part's line goes into it. `mapsto.nn.export.runner` puts them together: what reads an input, what opens the model, the
command, and what makes a head of examples.
"""
