"""Training and inference of models on spots."""
