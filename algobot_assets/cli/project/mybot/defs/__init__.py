"""Assets, checks, schedules and sensors of this project."""
