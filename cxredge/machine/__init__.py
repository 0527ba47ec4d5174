"""The machine at hand: which device it is, and whether it is fit to read films."""
