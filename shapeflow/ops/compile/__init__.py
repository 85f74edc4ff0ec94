"""Run-time compilation of the kernels in `kernels/`: sources, compilers, and a cache on disk addressed by content."""
