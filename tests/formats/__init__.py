"""Files of models: read, refused, quantized."""
