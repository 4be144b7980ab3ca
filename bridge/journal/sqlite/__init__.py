"""The journal in one SQLite file: `journal` puts it together. Loads nothing by itself, so that the writer stays small."""
