"""From text to token ids to word vectors: tokenizers, the vocabulary, pretrained word vectors."""
