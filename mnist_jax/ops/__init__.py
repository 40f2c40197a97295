"""Pure numeric functions with their own gradients: no Flax, no flags, no state."""
