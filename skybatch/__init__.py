"""skybatch: an embedded batch engine."""
