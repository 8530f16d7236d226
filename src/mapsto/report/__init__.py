"""A run's report: its content, its page, its charts."""
