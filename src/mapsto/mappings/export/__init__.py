"""From a network to a package that a runtime executes, with a report of how far its answers are from PyTorch's."""
