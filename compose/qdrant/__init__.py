"""A small local server that speaks the part of Qdrant's REST API this project needs.

It is for machines without Docker: one process over `qdrant-edge-py`, Qdrant's own engine.
Production code knows only a URL. Only the command line and tests may import this package.
"""
