"""States that survive: as plain data, as files, and as folders of memory-mapped arrays. Nothing here knows an optimizer."""
