"""Networks as plain `nn.Module`s with flat arguments: numbers in, logits out, no files and no texts."""
