"""Measurements of scitq beside other tools; `make bench` prints them."""
