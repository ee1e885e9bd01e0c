"""Rows of any file or frame, columns, labels and splits: from what a person has to labelled texts."""
