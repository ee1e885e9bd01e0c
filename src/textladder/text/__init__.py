"""From text to ids to vectors: the tokenizer, the vocabulary and the word vectors of the `lstm` level."""
