"""States that survive: as plain data, as files, and as folders of memory-mapped arrays. It knows no optimizer."""
