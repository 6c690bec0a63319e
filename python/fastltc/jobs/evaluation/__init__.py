"""What a model is judged by, what it answers, and what comes of comparing runs."""
