"""The Dagster instance: its storage and its queue, as dagster.yaml names them."""
