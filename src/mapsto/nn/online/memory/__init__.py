"""Methods against forgetting, one file each, found by walking this folder: a file's name is the method's name."""
