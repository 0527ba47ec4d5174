"""Network to decision: from a folder of films to a worklist."""
