"""The checks of `doctor`: check (what one is), host and guests and service (what is looked at)."""
