"""Data sets (`sets/`), tasks, augmentation, and the reading of files."""
