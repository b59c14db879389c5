"""Webhooks, which are delivered even after a restart."""
