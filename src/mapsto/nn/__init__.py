"""Plain functions and modules that mappings wrap; a room for each family, and those that several families stand on."""
