"""The lab's side: published data sets to a full-precision network, and how good a model is on them.

Training needs torch (`pip install "cxredge[train]"`); data sets, scoring and evaluation import none.
"""
