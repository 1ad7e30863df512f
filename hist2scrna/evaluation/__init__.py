"""What :func:`hist2scrna.tl.evaluate` computes: AnnData is read once, then all is arrays, scored in blocks."""
