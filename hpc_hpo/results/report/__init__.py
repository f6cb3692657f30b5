"""The report: a study as one HTML file that opens without a network.

One file here for each plot makes its plain data from the replayed journal, pure functions all;
`content.py` joins them, `compare.py` lays studies over each other, and `page.py` writes the page,
whose scripts and styles lie in `page/`. What people typed goes into the page as JSON alone, and
from there into text nodes or, escaped, into plots.
"""
