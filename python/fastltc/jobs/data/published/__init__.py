"""Time series that papers on liquid networks are about, by their published protocols."""
