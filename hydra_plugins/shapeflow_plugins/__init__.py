"""Hydra finds its plugins below `hydra_plugins`: shapeflow's sweeper (the grid) and launcher (one Snakemake for a whole batch)."""
