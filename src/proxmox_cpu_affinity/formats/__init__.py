"""Pure parsers and writers: text to values and back, one module per syntax; no I/O."""
