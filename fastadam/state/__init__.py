"""The storage of states: as plain data, in files, and in folders of memory-mapped arrays. It knows no optimizer."""
