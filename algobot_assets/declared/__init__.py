"""The declared state: markets, strategies, risk parameters and configurations as one human-edited YAML file.

From the ground up: rules (single values), parameters (canonical JSON), configurations (the known settings),
model (what may be declared), yaml_file (text to nodes that know their line), fields (mappings, dated
entries), reading (nodes to model), versions (rows and versions by day), differences (declared against
stored). Pure: no Dagster, no database, no clock.
"""
