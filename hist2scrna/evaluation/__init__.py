"""What :func:`hist2scrna.tl.evaluate` computes: predictors beside the truth, on arrays, in blocks."""
