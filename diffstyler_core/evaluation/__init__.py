"""What papers report: of features, of a result, and of a set of results."""
