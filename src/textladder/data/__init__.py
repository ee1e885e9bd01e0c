"""From a file, a DataFrame or a data set to labelled texts: reading rows, choosing columns, splitting."""
