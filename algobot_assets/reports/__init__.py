"""HTML pages: what each strategy did, whether to believe it, and what the data is worth.

Pages are self-contained files, written from the database through the client's queries. No Dagster.
"""
