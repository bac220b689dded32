"""An answer cut out of a passage, or none."""
