"""What this project adds to algobot_assets."""
