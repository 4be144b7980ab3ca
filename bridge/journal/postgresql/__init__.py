"""The journal in PostgreSQL: `journal` puts it together."""
