//! Floor 0: the pure words of Covibes. No effect, no JSON, no clock.
