"""From a network to a runtime's files and to a package; a runtime is a file in `runtimes/`."""
