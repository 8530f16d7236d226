"""What keeps personal data out of what is stored: texts, fields of tables, images."""
