"""Where data come from: folders, downloads, tables, archives; caches and fingerprints."""
