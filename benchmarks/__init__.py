"""Measurements, each in processes that do nothing else, with the raw samples kept."""
