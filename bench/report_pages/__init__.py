"""What `python bench/pages.py` writes of the reports: pages, blocks of figures within other pages, pictures."""
