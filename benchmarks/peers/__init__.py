"""Other tools on the same network, side by side. Not part of what is installed: see README.md for how to run them."""
