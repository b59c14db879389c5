"""Schedules runs on instances: which run goes to which instance, and when."""
