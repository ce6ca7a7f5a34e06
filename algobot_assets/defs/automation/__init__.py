"""Schedules, sensors, jobs and alerts."""
