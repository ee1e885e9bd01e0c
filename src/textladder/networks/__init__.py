"""Networks as plain `nn.Module`s with flat arguments: ids in, logits out, no files and no texts."""
