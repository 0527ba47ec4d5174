"""cxredge: chest X-ray models on the small computers of rural clinics, offline."""

__version__ = "0.1.0"
