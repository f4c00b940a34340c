"""What ``nao-ray bench`` holds nao_ray against: plain PyTorch, the published fit, Ray Tune, faults. Not installed."""
