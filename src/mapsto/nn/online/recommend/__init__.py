"""What ``online.recommend`` is made of: members for ratings and for clicks, whom each user's answers follow, and the record."""
