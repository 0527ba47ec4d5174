"""The lab's side: published data sets to a full-precision network (needs torch: `pip install "cxredge[train]"`)."""
