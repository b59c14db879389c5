"""Persistent delivery of webhooks: it continues after a restart."""
