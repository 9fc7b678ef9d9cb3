"""Pure values: the nouns of the glossary. Nothing in here reads, writes, asks the time or logs."""
