"""Full-precision run to small bundle: export, quantize, and measure at every step what it cost (needs torch and onnx)."""
