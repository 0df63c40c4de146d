// Hyperbolic tangent: y = tanh(x); dx = dy (1 - y^2).
#include "block.cuh"

__device__ element tanh_forward(element x) { return tanhf(x); }
KERNEL(tanh_forward, f32, bf16)

__device__ element tanh_backward(element y, element dy) { return dy * (1.0f - y * y); }
KERNEL(tanh_backward, f32, bf16)
