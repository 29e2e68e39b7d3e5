//! Floor 2: the traits through which everything else asks the world.
