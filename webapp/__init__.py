"""How Embedmill is asked: HTTP, and nothing else. Imports `tasks` only; served as
`uvicorn webapp.main:app`."""
