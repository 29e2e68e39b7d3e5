//! Floor 3: the runner, the six steps, undo and convergence.
