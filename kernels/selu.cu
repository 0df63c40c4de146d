// y = s x where x > 0, otherwise s a (exp(x) - 1); dx = s dy where y > 0, otherwise dy (y + s a).
#include "block.cuh"

__device__ element selu_forward(element x) { return x > 0.0f ? 1.05070099f * x : 1.75809934f * expm1f(x); }
KERNEL(selu_forward, f32, bf16)

__device__ element selu_backward(element y, element dy) { return y > 0.0f ? 1.05070099f * dy : dy * (y + 1.75809934f); }
KERNEL(selu_backward, f32, bf16)
