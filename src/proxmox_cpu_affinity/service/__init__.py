"""The service program: feeds events to reconcile.step and carries out its actions."""
