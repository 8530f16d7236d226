"""Which of several online learners answer and learn: mixtures of all, under a budget of time, or one an event by a bandit."""
