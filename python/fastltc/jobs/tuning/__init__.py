"""The search for options of training: what is tried, and the study that tries it."""
