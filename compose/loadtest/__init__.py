"""The verb `embedmill loadtest`: requests against a running web, and what their senders saw.

`arrivals` says when, `texts` says what, `connection` carries it, `tally` counts it, `loops` brings
them together, `report` says it. Only `compose.cli` imports `command`.
"""
