"""Threshold methods, one a file; all of them read the same histograms."""
