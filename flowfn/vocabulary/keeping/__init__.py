"""Keeping: passes held fast, in memory (caching) or in files (storing; the files themselves are `flowfn.shelves`)."""
