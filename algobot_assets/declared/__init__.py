"""The declared state: markets, strategies, risk parameters and configurations in one YAML file that people edit.

Bottom up: rules (single values), parameters (canonical JSON), configurations (the known settings), model (valid
entries), yaml_file (text to nodes with line numbers), fields (mappings and dated entries), reading and
strategy_reading (nodes to model), versions (rows, and versions by day), differences (declared compared with stored).
Pure functions: no Dagster, no database, no clock. Only state_file reads a file.
"""
