"""Say how good, how fast and how large a network or a package is; every figure that is sampled has its interval."""
