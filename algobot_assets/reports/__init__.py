"""Pages for people: what each strategy did, whether to believe it, and what the data is worth.

Reads the database through the client's questions and writes self-contained HTML files; no Dagster, nothing is
computed that a table holds. Above client and explain, below assets.
"""
