"""What a benchmark is made of, apart from running it: folds, gene panels, job folders, tables."""
