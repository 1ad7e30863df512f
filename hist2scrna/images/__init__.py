"""From AnnData to batches: images, graphs, spots, blocks, augmentation. They know nothing of models."""
