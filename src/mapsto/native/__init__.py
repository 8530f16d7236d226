"""C++ sources (`csrc/`) and how they are compiled for this processor."""
