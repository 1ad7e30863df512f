"""From AnnData to the arrays of its spots: sections, coordinates, counts, labels, graph."""
