"""One module per command; each returns values and lets cli.ui show them."""
