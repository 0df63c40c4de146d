// Leaky rectified linear unit: y = x where x > 0, otherwise slope x; dx = dy where y > 0, otherwise slope dy.
#include "block.cuh"

__device__ element leaky_relu_forward(element x, float slope) { return x > 0.0f ? x : slope * x; }
KERNEL(leaky_relu_forward, f32, bf16)

__device__ element leaky_relu_backward(element y, element dy, float slope) { return y > 0.0f ? dy : slope * dy; }
KERNEL(leaky_relu_backward, f32, bf16)
