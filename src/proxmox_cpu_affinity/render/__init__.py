"""Values made into pictures and text for people; no I/O."""
